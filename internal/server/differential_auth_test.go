//go:build e2e

package server_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStreamsAsEtcd(t *testing.T) {
	p := startPair(t)
	theirs, ours := stream(t, p.theirs), stream(t, p.ours)
	g := &generator{rand: rand.New(rand.NewPCG(*seeds, 1))}
	written := soak(400)
	for step := range written {
		method := pick(g, "PUT", "PUT", "POST", "DELETE")
		options, settle := g.options(method)
		g.learn(p.both(t, step, g.encode(method, "/v2/keys"+g.key(), options, settle)))
	}
	p.both(t, written, request{method: "PUT", path: "/v2/keys/end?value=x"})
	want, got := <-theirs, <-ours
	if !slices.Equal(want, got) {
		t.Fatalf("%d events of etcd's and %d of ours: first difference\n%s", len(want), len(got), firstDifference(want, got))
	}
	if len(want) < written/10 {
		t.Errorf("%d events for %d requests", len(want), written)
	}
}

func firstDifference(want, got []string) string {
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			return "--- etcd\n" + want[i] + "\n--- ours\n" + got[i]
		}
	}
	return "one ends before the other"
}

// stream collects events of the whole tree until that of the key /end.
func stream(t *testing.T, base string) <-chan []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", base+"/v2/keys/?wait=true&stream=true&recursive=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	all := make(chan []string, 1)
	go func() {
		defer resp.Body.Close()
		var events []string
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			events = append(events, normal(lines.Text(), false))
			if strings.Contains(lines.Text(), `"key":"/end"`) {
				break
			}
		}
		all <- events
	}()
	return all
}

// authRequest is a random request on users, roles and the switch.
func (g *generator) authRequest() request {
	r := request{method: pick(g, "GET", "GET", "PUT", "PUT", "PUT", "PUT", "PUT", "DELETE", "DELETE")}
	if g.chance(5) {
		r.method = pick(g, "POST", "HEAD")
	}
	switch g.rand.IntN(8) {
	case 0, 1, 2:
		name := pick(g, "root", "ann", "bob", "")
		r.path, r.body = "/v2/auth/users/"+name, g.userBody(name)
	case 3, 4:
		name := pick(g, "root", "guest", "r1", "r2", "")
		r.path, r.body = "/v2/auth/roles/"+name, g.roleBody(name)
	case 5:
		r.path = "/v2/auth/enable"
	case 6:
		r.path = pick(g, "/v2/auth/users", "/v2/auth/roles", "/v2/auth/users/a/b", "/v2/auth/roles/a/b", "/v2/members", "/v2/auth")
	default:
		r.path = "/v2/keys" + pick(g, "/a", "/a/b", "/c", "/") + pick(g, "", "?recursive=true", "?quorum=true", "?value=1")
	}
	if r.method != "PUT" {
		r.body = ""
	}
	if g.chance(70) {
		login := pick(g, "root:p1", "root:p1", "root:p1", "root:p1", "root:p1", "root:p1", "ann:p1", "bob:p2", "bob:p1", "nobody:x", "root", "")
		r.header = []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(login))}
	}
	if g.chance(3) {
		r.header = []string{"Authorization", pick(g, "Basic", "Bearer x", "Basic !!")}
	}
	return r
}

func (g *generator) some(names ...string) []string {
	var out []string
	for _, name := range names {
		if g.chance(40) {
			out = append(out, name)
		}
	}
	return out
}

func (g *generator) userBody(name string) string {
	body := map[string]any{"user": name}
	switch { // root keeps its password, or all would end in 401
	case g.chance(50):
	case name == "root":
		body["password"] = "p1"
	default:
		body["password"] = pick(g, "p1", "p1", "p2", "")
	}
	for _, field := range []string{"roles", "grant", "revoke"} {
		if g.chance(25) {
			body[field] = g.some("r1", "r2", "guest", "root")
		}
	}
	return g.maybeBroken(body)
}

func (g *generator) roleBody(name string) string {
	body := map[string]any{"role": name}
	for _, field := range []string{"permissions", "grant", "revoke"} {
		if g.chance(35) {
			body[field] = map[string]any{"kv": map[string]any{
				"read":  g.some("/a", "/a/*", "/*", "/c*"),
				"write": g.some("/a", "/a/*", "/*", "/c*"),
			}}
		}
	}
	return g.maybeBroken(body)
}

func (g *generator) maybeBroken(body map[string]any) string {
	if g.chance(4) {
		body[pick(g, "user", "role")] = "other"
	}
	data, err := json.Marshal(body)
	if err != nil {
		return err.Error()
	}
	if g.chance(4) {
		return pick(g, "", "{", "[]", `{"user":1}`, string(data)+"x")
	}
	return string(data)
}

func TestAuthAnswersAsEtcd(t *testing.T) {
	p := startPair(t)
	g := &generator{rand: rand.New(rand.NewPCG(*seeds, 2))}
	codes := map[string]int{}
	for step := range soak(600) {
		if step%40 == 0 {
			p.login(t, step)
		}
		got := p.both(t, step, g.authRequest())
		codes[strings.Fields(got)[0]]++
	}
	t.Logf("answers by status: %v", codes)
	for _, code := range []string{"200", "201", "400", "401", "403", "404", "405", "409"} {
		if codes[code] == 0 {
			t.Errorf("no request was answered with status %s", code)
		}
	}
}

// login makes sure that auth is on and root can log in, every now and then.
func (p *pair) login(t *testing.T, step int) {
	t.Helper()
	root := []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("root:p1"))}
	p.both(t, step, request{method: "DELETE", path: "/v2/auth/enable", header: root})
	p.both(t, step, request{method: "PUT", path: "/v2/auth/users/root", body: `{"user":"root","password":"p1"}`})
	if step%80 == 0 {
		p.both(t, step, request{method: "PUT", path: "/v2/auth/enable"})
	}
}

func TestMembersAnswerAsEtcd(t *testing.T) {
	p := startPair(t)
	self := members(t, must(t)(fetch(p.ours+"/v2/members"))).Members[0]
	requests := []request{
		{method: "GET", path: "/v2/members"},
		{method: "GET", path: "/v2/members/"},
		{method: "GET", path: "/v2/members/leader"},
		{method: "GET", path: "/v2/members/x"},
		{method: "HEAD", path: "/v2/members"},
		{method: "PATCH", path: "/v2/members"},
		{method: "DELETE", path: "/v2/members"},
		{method: "DELETE", path: "/v2/members/zz"},
		{method: "DELETE", path: "/v2/members/abc"},
		{method: "DELETE", path: "/v2/members/" + self.ID},
		{method: "GET", path: "/v2/machines"},
		{method: "HEAD", path: "/v2/machines"},
		{method: "PUT", path: "/v2/machines"},
		{method: "GET", path: "/health"},
		{method: "POST", path: "/health"},
		{method: "POST", path: "/version"},
		{method: "POST", path: "/v2/stats/store"},
		{method: "HEAD", path: "/v2/stats/self"},
	}
	for _, target := range []string{"", "/zz", "/abc", "/" + self.ID} {
		for _, body := range []string{
			"", "{", `{}`, `{"peerURLs":[]}`, `{"peerURLs":["x"]}`, `{"peerURLs":["http://h"]}`, `{"peerURLs":["ftp://h:1"]}`,
			`{"peerURLs":["http://h:1/p"]}`, `{"peerURLs":["` + self.PeerURLs[0] + `"]}`,
		} {
			for _, kind := range []string{"application/json", "application/json; charset=utf-8", "text/plain"} {
				requests = append(requests,
					request{method: "POST", path: "/v2/members" + target, body: body, header: []string{"Content-Type", kind}},
					request{method: "PUT", path: "/v2/members" + target, body: body, header: []string{"Content-Type", kind}})
			}
		}
	}
	requests = append(requests,
		request{method: "PUT", path: "/v2/members/" + self.ID, body: `{"peerURLs":["http://127.0.0.1:9","http://127.0.0.1:8"]}`,
			header: []string{"Content-Type", "application/json"}},
		request{method: "GET", path: "/v2/members"})
	for step, r := range requests {
		p.both(t, step, r)
	}
}

func must(t *testing.T) func(string, error) string {
	return func(s string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestStatsHaveEtcdsFields(t *testing.T) {
	p := startPair(t)
	for _, path := range []string{"/v2/stats/self", "/v2/stats/store", "/v2/stats/leader", "/version"} {
		want, got := fields(t, p.theirs+path), fields(t, p.ours+path)
		if !slices.Equal(want, got) {
			t.Errorf("%s: fields %v, want %v", path, got, want)
		}
	}
}

func fields(t *testing.T, url string) []string {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(must(t)(fetch(url))), &v); err != nil {
		t.Fatal(err)
	}
	var names []string
	for name, value := range v {
		names = append(names, fmt.Sprintf("%s %T", name, value))
	}
	slices.Sort(names)
	return names
}
