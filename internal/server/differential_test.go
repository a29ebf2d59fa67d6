//go:build e2e

package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/server"
)

var (
	requests = flag.Int("requests", 20000, "v2 requests that the differential test sends to both servers")
	seeds    = flag.Uint64("seed", 1, "of the differential test's requests")
)

// soak multiplies the work of a campaign.
func soak(n int) int {
	if times, err := strconv.Atoi(os.Getenv("LIFEBOAT_SOAK")); err == nil && times > 0 {
		return n * times
	}
	return n
}

// request is one that both servers get.
type request struct {
	method, path, body string
	header             []string
	settle             time.Duration // how long until keys it gave a short life are gone
}

func (r request) String() string {
	return fmt.Sprintf("%s %s body=%q %q", r.method, r.path, r.body, r.header)
}

// pair is etcd 3.4 and our server, started from the same dir.
type pair struct {
	theirs, ours string
	client       http.Client
}

func startPair(t *testing.T) *pair {
	t.Helper()
	dir := seed(t)
	clone := filepath.Join(t.TempDir(), "clone")
	copyDir(t, dir, clone)
	e := startEtcd(t, dir)
	ours, _ := serve(t, clone, server.Options{SnapshotCount: 500})
	p := &pair{theirs: e.url, ours: ours}
	p.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	wait(t, "etcd to publish its URL", func() bool {
		list, err := fetch(e.url + "/v2/members")
		return err == nil && strings.Contains(list, e.url)
	})
	p.align(t)
	return p
}

// align waits until both have expired what is due.
func (p *pair) align(t *testing.T) {
	t.Helper()
	wait(t, "both stores to have the same index", func() bool {
		return storeIndex(t, p.theirs) == storeIndex(t, p.ours)
	})
}

// blocked is the answer to a watch that has nothing to tell.
const blocked = "blocked"

// send asks one server. A watch that tells nothing for so long is blocked.
func (p *pair) send(base string, r request, watch time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, base+r.path, strings.NewReader(r.body))
	if err != nil {
		return "", err
	}
	for i := 0; i < len(r.header); i += 2 {
		req.Header.Set(r.header[i], r.header[i+1])
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if r.waits() {
		defer time.AfterFunc(watch, cancel).Stop()
	}
	body, err := io.ReadAll(resp.Body)
	if errors.Is(err, context.Canceled) {
		body, err = append(body, blocked...), nil
	}
	return render(resp, string(body), base), err
}

// render shows what must be the same: not times, nor what is raft's.
func render(resp *http.Response, body, base string) string {
	var b strings.Builder
	fmt.Fprintln(&b, resp.StatusCode)
	for _, name := range []string{"X-Etcd-Index", "X-Etcd-Cluster-Id", "Content-Type", "Allow", "Location"} {
		fmt.Fprintf(&b, "%s: %s\n", name, resp.Header.Get(name))
	}
	for _, name := range []string{"X-Raft-Index", "X-Raft-Term"} {
		fmt.Fprintf(&b, "%s: %v\n", name, resp.Header.Get(name) != "")
	}
	sorted := strings.Contains(resp.Request.URL.RawQuery, "sorted=true")
	b.WriteString(normal(strings.ReplaceAll(body, base, "URL"), sorted))
	return b.String()
}

// normal is a JSON body without times, with lists of nodes in order unless the
// order was asked for. Anything else stays as it is.
func normal(body string, sorted bool) string {
	var v any
	d := json.NewDecoder(strings.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return body
	}
	rest, err := io.ReadAll(d.Buffered())
	if err != nil {
		return body
	}
	normalise(v, sorted)
	out, err := json.Marshal(v)
	if err != nil {
		return body
	}
	return string(out) + string(rest)
}

func normalise(v any, sorted bool) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range []string{"ttl", "expiration"} {
			if _, ok := v[name]; ok {
				v[name] = "some"
			}
		}
		nodes, ok := v["nodes"].([]any)
		if ok && !sorted {
			slices.SortFunc(nodes, func(a, b any) int { return strings.Compare(key(a), key(b)) })
		}
		for _, child := range v {
			normalise(child, sorted)
		}
	case []any:
		for _, child := range v {
			normalise(child, sorted)
		}
	}
}

func key(node any) string {
	m, _ := node.(map[string]any)
	k, _ := m["key"].(string)
	return k
}

func (r request) waits() bool { return strings.Contains(r.path, "wait=") }

func (p *pair) answers(t *testing.T, step int, r request, watch time.Duration) (want, got string) {
	t.Helper()
	want, err := p.send(p.theirs, r, watch)
	if err != nil {
		t.Fatalf("step %d: %v: etcd: %v", step, r, err)
	}
	got, err = p.send(p.ours, r, watch)
	if err != nil {
		t.Fatalf("step %d: %v: ours: %v", step, r, err)
	}
	return want, got
}

// both sends a request to etcd and to us, and ends the test if the answers differ.
func (p *pair) both(t *testing.T, step int, r request) string {
	t.Helper()
	want, got := p.answers(t, step, r, 100*time.Millisecond)
	if got != want && r.waits() { // one may have been slow
		want, got = p.answers(t, step, r, 5*time.Second)
	}
	if got != want {
		t.Fatalf("step %d: %v\n--- etcd\n%s\n--- ours\n%s", step, r, want, got)
	}
	if r.settle > 0 {
		time.Sleep(r.settle)
		p.align(t)
	}
	return got
}

func TestAnswersAsEtcd(t *testing.T) {
	t.Logf("seed %d", *seeds)
	p := startPair(t)
	g := &generator{rand: rand.New(rand.NewPCG(*seeds, 0))}
	codes := map[string]int{}
	for step := range soak(*requests) {
		r := g.next()
		got := p.both(t, step, r)
		g.learn(got)
		codes[strings.Fields(got)[0]+" "+errorCode(got)]++
	}
	t.Logf("answers by status and error code: %v", codes)
	for _, code := range []string{"100", "101", "102", "104", "105", "108", "201", "202", "203", "209", "211", "212"} {
		found := false
		for seen := range codes {
			found = found || strings.HasSuffix(seen, " "+code)
		}
		if !found {
			t.Errorf("no request was answered with error code %s", code)
		}
	}
}

// TestRareAnswersAsEtcd asks what chance may leave out.
func TestRareAnswersAsEtcd(t *testing.T) {
	p := startPair(t)
	for step := range 1010 {
		p.both(t, step, request{method: "PUT", path: "/v2/keys/a?value=x"})
	}
	for step, r := range []struct{ method, path, want string }{
		{"GET", "/v2/keys/a?wait=true&waitIndex=2", `"errorCode":401`},
		{"GET", "/v2/keys/a?wait=true&waitIndex=900", `"action":"set"`},
		{"GET", "/v2/keys/a?wait=true&waitIndex=900000", blocked},
		{"PUT", "/v2/keys/?value=x", `"errorCode":107`},
		{"PUT", "/v2/keys?dir=true&prevExist=true&ttl=10", `"errorCode":107`},
		{"DELETE", "/v2/keys/?recursive=true", `"errorCode":107`},
		{"DELETE", "/v2/keys/?prevIndex=1", `"errorCode":102`},
		{"POST", "/v2/keys/?value=x", `"action":"create"`},
		{"PUT", "/v2/keys/d?dir=true", `"action":"set"`},
		{"PUT", "/v2/keys/d?dir=true&prevExist=true&ttl=500", `"action":"update"`},
		{"PUT", "/v2/keys/d?dir=true&prevExist=true&ttl=600&refresh=true", `"action":"update"`},
		{"PUT", "/v2/keys/d?prevExist=true", `"action":"update"`},
		{"PUT", "/v2/keys/d?prevExist=true&value=x", `"errorCode":102`},
		{"GET", "/v2/keys/d?wait=true&waitIndex=1017", `"action":"update"`},
		{"GET", "/v2/keys/d", `"dir":true`},
	} {
		got := p.both(t, step, request{method: r.method, path: r.path})
		if !strings.Contains(got, r.want) {
			t.Errorf("%s %s: %s, want %s", r.method, r.path, got, r.want)
		}
	}
}

func errorCode(answer string) string {
	_, rest, ok := strings.Cut(answer, `"errorCode":`)
	if !ok {
		return ""
	}
	code, _, _ := strings.Cut(rest, ",")
	return code
}

// generator makes requests, most of which make sense.
type generator struct {
	rand  *rand.Rand
	index uint64 // of the store, from the last answer
}

func (g *generator) learn(answer string) {
	_, rest, _ := strings.Cut(answer, "X-Etcd-Index: ")
	number, _, _ := strings.Cut(rest, "\n")
	if index, err := strconv.ParseUint(number, 10, 64); err == nil && index > 0 {
		g.index = index
	}
}

func (g *generator) chance(percent int) bool { return g.rand.IntN(100) < percent }

func pick[T any](g *generator, from ...T) T { return from[g.rand.IntN(len(from))] }

func (g *generator) next() request {
	switch {
	case g.chance(2):
		return g.oddPath()
	case g.chance(3):
		return g.watch()
	}
	method := pick(g, "PUT", "PUT", "PUT", "PUT", "PUT", "POST", "POST", "GET", "GET", "GET", "DELETE", "DELETE", "HEAD")
	if g.chance(1) {
		method = pick(g, "PATCH", "TRACE", "FOO", "get")
	}
	options, settle := g.options(method)
	return g.encode(method, "/v2/keys"+g.key(), options, settle)
}

// key is from a small tree, so that requests meet.
func (g *generator) key() string {
	if g.chance(2) {
		return pick(g, "", "/", "/%2e%2e/x", "/a%2Fb", "/a%2F%2Fb", "/ü", "/%E4%B8%96", "/a%20b", "/a+b", "/x/_hidden", "/%00", "/a;b", "/a:b", "/…/é")
	}
	depth := 1 + g.rand.IntN(3)
	var b strings.Builder
	for range depth {
		b.WriteString("/" + pick(g, "a", "b", "c", "d", "_h"))
	}
	if g.chance(3) {
		b.WriteString("/")
	}
	return b.String()
}

func (g *generator) options(method string) (url.Values, time.Duration) {
	options := url.Values{}
	var settle time.Duration
	if method == "PUT" || method == "POST" {
		if !g.chance(15) {
			options.Set("value", pick(g, "1", "2", "3", "", "ü世", "<a&b>", strings.Repeat("x", 3000), "\x00\xff"))
		}
		settle = g.ttl(options)
	}
	g.maybe(options, 6, "dir", "true", "1", "T", "false", "", "yes")
	if method == "DELETE" {
		g.maybe(options, 40, "dir", "true")
	}
	g.maybe(options, 10, "recursive", "true", "true", "false", "x")
	g.maybe(options, 10, "sorted", "true", "true", "false", "x")
	g.maybe(options, 5, "quorum", "true", "true", "false", "2")
	g.maybe(options, 12, "prevExist", "true", "false", "", "maybe")
	g.maybe(options, 8, "prevValue", "1", "2", "3", "ü世", "")
	g.maybe(options, 8, "prevIndex", g.near(), g.near(), "0", "-1", "x", "18446744073709551616")
	g.maybe(options, 6, "noValueOnSuccess", "true", "false", "?")
	g.maybe(options, 3, "refresh", "true", "true", "false", "?")
	g.maybe(options, 1, "stream", "true", "x")
	g.maybe(options, 1, "wait", "x", "false")
	if method != "GET" {
		g.maybe(options, 1, "wait", "true")
	}
	g.maybe(options, 2, "unknown", "1")
	if g.chance(1) {
		options.Add("dir", "x")
	}
	return options, settle
}

func (g *generator) maybe(options url.Values, percent int, name string, values ...string) {
	if g.chance(percent) {
		options.Set(name, pick(g, values...))
	}
}

// ttl sets a life that is either long or over before the next request.
func (g *generator) ttl(options url.Values) time.Duration {
	switch {
	case g.chance(10):
		options.Set("ttl", pick(g, "1000", "5000", "", "x", "-1", "1.5"))
	case g.rand.IntN(300) == 0:
		options.Set("ttl", pick(g, "0", "1", "18446744073709551615"))
		return 1700 * time.Millisecond
	}
	if g.chance(20) && options.Get("ttl") != "" {
		options.Set("refresh", "true")
		if g.chance(80) {
			options.Del("value")
		}
	}
	return 0
}

func (g *generator) near() string {
	return strconv.FormatUint(g.index-min(g.index, uint64(g.rand.IntN(12))), 10)
}

// encode puts the options into the query or the body.
func (g *generator) encode(method, path string, options url.Values, settle time.Duration) request {
	r := request{method: method, path: path, settle: settle}
	if (method == "PUT" || method == "POST") && g.chance(70) {
		r.header = []string{"Content-Type", "application/x-www-form-urlencoded"}
		r.body = options.Encode()
		if g.chance(2) {
			r.body += pick(g, "&%zz", "&a=%", ";", "&=")
		}
		if g.chance(2) {
			r.header[1] = pick(g, "application/json", "text/plain", "multipart/form-data", "a/b/c", "application/x-www-form-urlencoded; charset=utf-8")
		}
		return r
	}
	if len(options) > 0 {
		r.path += "?" + options.Encode()
	}
	if g.chance(1) {
		r.path += pick(g, "?&a=%zz", "?;", "?=")
	}
	return r
}

// watch asks for something that happened, or waits a little for what does not.
func (g *generator) watch() request {
	index := uint64(1)
	switch {
	case g.chance(70):
		index = g.index - min(g.index, uint64(g.rand.IntN(40)))
	case g.chance(50):
		index = g.index - min(g.index, 900+uint64(g.rand.IntN(300)))
	}
	options := url.Values{"wait": {"true"}, "waitIndex": {strconv.FormatUint(index, 10)}}
	g.maybe(options, 60, "recursive", "true")
	g.maybe(options, 10, "stream", "true")
	g.maybe(options, 3, "waitIndex", "x", "-1", "")
	path := g.key()
	if g.chance(30) {
		path = "/"
	}
	return request{method: "GET", path: "/v2/keys" + path + "?" + options.Encode()}
}

func (g *generator) oddPath() request {
	path := pick(g, "/", "/v2", "/v2/", "/v2/keys", "/v2/keysfoo", "/v2//keys/a", "/v2/keys//a", "/v2/keys/a/../b", "/v2/keys/./a",
		"/v2/keys/a/..", "/v2/keys/..", "/v2/keys/%2e", "/v2/keys/a//?x=1", "/v2/machines/", "/v2/stats", "/v2/stats/", "/v2/stats/none",
		"/v2/stats/self/", "/v2/auth", "/v2/auth/", "/v2/auth/enable/", "/version/", "/health/", "/v1/keys/a", "/v2/members/", "/foo")
	return request{method: pick(g, "GET", "GET", "PUT", "POST", "DELETE", "HEAD"), path: path}
}
