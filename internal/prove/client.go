package prove

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// client speaks the v2 API to the booted copy.
type client struct {
	base string // such as https://127.0.0.1:4711
	http *http.Client
}

// requestTimeout bounds one answer: a tree of hundreds of MB takes a while.
const requestTimeout = 5 * time.Minute

// newClient takes no proxy from the environment.
func newClient(base string, config *tls.Config) *client {
	return &client{base: base, http: &http.Client{
		Timeout:   requestTimeout,
		Transport: &http.Transport{TLSClientConfig: config},
	}}
}

// apiNode is a key or directory as the API shows it.
type apiNode struct {
	Key           string    `json:"key"`
	Value         string    `json:"value"`
	Dir           bool      `json:"dir"`
	Expiration    time.Time `json:"expiration"`
	CreatedIndex  uint64    `json:"createdIndex"`
	ModifiedIndex uint64    `json:"modifiedIndex"`
	Nodes         []apiNode `json:"nodes"`
}

// get reads a key, and all that is listed below a directory.
func (c *client) get(ctx context.Context, key string, query url.Values) (apiNode, error) {
	var answer struct{ Node apiNode }
	err := c.do(ctx, http.MethodGet, "/v2/keys"+key, query, nil, &answer)
	return answer.Node, err
}

func (c *client) put(ctx context.Context, key, value string) (apiNode, error) {
	var answer struct{ Node apiNode }
	err := c.do(ctx, http.MethodPut, "/v2/keys"+key, nil, url.Values{"value": {value}}, &answer)
	return answer.Node, err
}

// members are their ids.
func (c *client) members(ctx context.Context) ([]string, error) {
	var answer struct{ Members []struct{ ID string } }
	if err := c.do(ctx, http.MethodGet, "/v2/members", nil, nil, &answer); err != nil {
		return nil, err
	}
	var ids []string
	for _, m := range answer.Members {
		ids = append(ids, m.ID)
	}
	return ids, nil
}

// names are those of the users or roles: kind is "user" or "role".
func (c *client) names(ctx context.Context, kind string) ([]string, error) {
	var answer map[string][]map[string]json.RawMessage
	if err := c.do(ctx, http.MethodGet, "/v2/auth/"+kind+"s", nil, nil, &answer); err != nil {
		return nil, err
	}
	var names []string
	for _, one := range answer[kind+"s"] {
		var name string
		if err := json.Unmarshal(one[kind], &name); err != nil {
			return nil, fmt.Errorf("%ss: %w", kind, err)
		}
		names = append(names, name)
	}
	return names, nil
}

// do sends a request and decodes its answer; one that is no success is a
// *DamageError.
func (c *client) do(ctx context.Context, method, path string, query, form url.Values, answer any) error {
	target := c.base + (&url.URL{Path: path, RawQuery: query.Encode()}).String()
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		said, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
		if err != nil {
			return err
		}
		return damagef("%s %s: %s: %s", method, path, resp.Status, strings.TrimSpace(string(said)))
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

func (c *client) close() { c.http.CloseIdleConnections() }
