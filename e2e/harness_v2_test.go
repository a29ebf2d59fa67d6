//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// v2Node is a node of the v2 API's answers. TTL is left out: it counts down.
type v2Node struct {
	Key           string    `json:"key"`
	Value         string    `json:"value"`
	Dir           bool      `json:"dir"`
	Expiration    time.Time `json:"expiration"`
	CreatedIndex  uint64    `json:"createdIndex"`
	ModifiedIndex uint64    `json:"modifiedIndex"`
	Nodes         []v2Node  `json:"nodes"`
}

// v2Response is an answer of /v2/keys, good or bad.
type v2Response struct {
	Status    int    `json:"-"`
	EtcdIndex string `json:"-"`
	Action    string `json:"action"`
	Node      v2Node `json:"node"`
	ErrorCode int    `json:"errorCode"`
	Message   string `json:"message"`
}

// v2 sends a request to /v2/keys of the etcd; form may be nil.
func (e *etcd) v2(method, key string, query, form url.Values) (*v2Response, error) {
	req, err := http.NewRequest(method, e.client+"/v2/keys"+key+"?"+query.Encode(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	c := http.Client{Timeout: 15 * time.Second}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	answer := &v2Response{Status: resp.StatusCode, EtcdIndex: resp.Header.Get("X-Etcd-Index")}
	if err := json.Unmarshal(body, answer); err != nil {
		return nil, fmt.Errorf("%s %s: %s: %w", method, key, body, err)
	}
	return answer, nil
}

// v2Set sets a key and fails the test when the etcd does not take it.
func (e *etcd) v2Set(key, value string) *v2Response {
	e.t.Helper()
	resp, err := e.v2(http.MethodPut, key, nil, url.Values{"value": {value}})
	if err != nil {
		e.t.Fatal(err)
	}
	if resp.Status/100 != 2 {
		e.t.Fatalf("set %s: %d %s", key, resp.Status, resp.Message)
	}
	return resp
}

// v2Dump reads the tree below key.
func (e *etcd) v2Dump(key string) v2Node {
	e.t.Helper()
	resp, err := e.v2(http.MethodGet, key, url.Values{"recursive": {"true"}, "sorted": {"true"}}, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	if resp.Status != http.StatusOK {
		e.t.Fatalf("dump %s: %d %s", key, resp.Status, resp.Message)
	}
	return resp.Node
}

// readV2Dump reads a dump kept as a server's answer.
func readV2Dump(t testing.TB, path string) v2Node {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var resp v2Response
	if err := json.Unmarshal(data, &resp); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return resp.Node
}

// lines is the tree as one line a node, in the order of the answer.
func (n v2Node) lines() []string {
	all := []string{fmt.Sprintf("%s dir=%t created=%d modified=%d expires=%s %q",
		n.Key, n.Dir, n.CreatedIndex, n.ModifiedIndex, n.Expiration.UTC().Format(time.RFC3339Nano), n.Value)}
	for _, child := range n.Nodes {
		all = append(all, child.lines()...)
	}
	return all
}

// diffLines tells the lines that only one side has, or "".
func diffLines(got, want []string) string {
	var out strings.Builder
	inGot, inWant := map[string]bool{}, map[string]bool{}
	for _, l := range got {
		inGot[l] = true
	}
	for _, l := range want {
		inWant[l] = true
		if !inGot[l] {
			fmt.Fprintf(&out, "missing: %s\n", l)
		}
	}
	for _, l := range got {
		if !inWant[l] {
			fmt.Fprintf(&out, "not expected: %s\n", l)
		}
	}
	if out.Len() == 0 && !slices.Equal(got, want) {
		return "the same lines in another order"
	}
	return out.String()
}
