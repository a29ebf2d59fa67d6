package server_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/server"
)

func newServer(t *testing.T, opts server.Options) *server.Server {
	t.Helper()
	return open(t, create(t), opts)
}

// TestKeyRequests shows answers in full; that they are etcd's is the
// differential test's to prove.
func TestKeyRequests(t *testing.T) {
	s := newServer(t, server.Options{})
	for _, tt := range []struct {
		name, method, target, body string
		code                       int
		want                       string
	}{
		{"create", "PUT", "/v2/keys/os", "value=linux", 201,
			`{"action":"set","node":{"key":"/os","value":"linux","modifiedIndex":2,"createdIndex":2}}`},
		{"set again", "PUT", "/v2/keys/os", "value=plan9", 200,
			`{"action":"set","node":{"key":"/os","value":"plan9","modifiedIndex":3,"createdIndex":3},"prevNode":{"key":"/os","value":"linux","modifiedIndex":2,"createdIndex":2}}`},
		{"get", "GET", "/v2/keys/os", "", 200,
			`{"action":"get","node":{"key":"/os","value":"plan9","modifiedIndex":3,"createdIndex":3}}`},
		{"missing", "GET", "/v2/keys/none", "", 404,
			`{"errorCode":100,"message":"Key not found","cause":"/none","index":3}`},
		{"compare failed", "PUT", "/v2/keys/os", "value=x&prevValue=bsd", 412,
			`{"errorCode":101,"message":"Compare failed","cause":"[bsd != plan9]","index":3}`},
		{"in order", "POST", "/v2/keys/queue", "value=job", 201,
			`{"action":"create","node":{"key":"/queue/00000000000000000004","value":"job","modifiedIndex":4,"createdIndex":4}}`},
		{"no value on success", "PUT", "/v2/keys/os?noValueOnSuccess=true", "value=hurd", 200, `{"action":"set"}`},
		{"hidden", "PUT", "/v2/keys/_h/k", "value=x", 201,
			`{"action":"set","node":{"key":"/_h/k","value":"x","modifiedIndex":6,"createdIndex":6}}`},
		{"list without hidden", "GET", "/v2/keys/?sorted=true", "", 200,
			`{"action":"get","node":{"dir":true,"nodes":[{"key":"/os","value":"hurd","modifiedIndex":5,"createdIndex":5},{"key":"/queue","dir":true,"modifiedIndex":4,"createdIndex":4}]}}`},
		{"not empty", "DELETE", "/v2/keys/queue?dir=true", "", 403,
			`{"errorCode":108,"message":"Directory not empty","cause":"/queue","index":6}`},
		{"root", "DELETE", "/v2/keys/?recursive=true", "", 400,
			`{"errorCode":107,"message":"Root is read only","cause":"/","index":6}`},
		{"past event", "GET", "/v2/keys/os?wait=true&waitIndex=3", "", 200,
			`{"action":"set","node":{"key":"/os","value":"plan9","modifiedIndex":3,"createdIndex":3},"prevNode":{"key":"/os","value":"linux","modifiedIndex":2,"createdIndex":2}}`},
		{"bad number", "GET", "/v2/keys/os?waitIndex=x", "", 400,
			`{"errorCode":203,"message":"The given index in POST form is not a number","cause":"invalid value for \"waitIndex\"","index":0}`},
	} {
		got := ask(s.Handler(), tt.method, tt.target, tt.body)
		if got.code != tt.code || strings.TrimSpace(got.body) != tt.want {
			t.Errorf("%s: got %d %s, want %d %s", tt.name, got.code, got.body, tt.code, tt.want)
		}
		for _, name := range []string{"X-Etcd-Index", "X-Etcd-Cluster-Id"} {
			if got.header.Get(name) == "" {
				t.Errorf("%s: no %s", tt.name, name)
			}
		}
	}
}

// A directory's time to live can be changed, also on replay: see updateStore.
func TestDirectoryTTL(t *testing.T) {
	dir := create(t, "/d/k")
	s := open(t, dir, server.Options{SyncInterval: 50 * time.Millisecond})
	got := ask(s.Handler(), "PUT", "/v2/keys/d?dir=true&prevExist=true&ttl=100", "")
	for _, want := range []string{`"action":"update"`, `"dir":true`, `"ttl":100`, `"prevNode":{"key":"/d","dir":true`} {
		if !strings.Contains(got.body, want) {
			t.Errorf("%d %s: want %s", got.code, got.body, want)
		}
	}
	wantKeys(t, s, "/d/k")
	closeServer(t, s)
	s = open(t, dir, server.Options{SyncInterval: 50 * time.Millisecond})
	if got := ask(s.Handler(), "GET", "/v2/keys/d", ""); !strings.Contains(got.body, `"ttl":`) {
		t.Errorf("after a restart: %s", got.body)
	}
	ask(s.Handler(), "PUT", "/v2/keys/d?dir=true&prevExist=true&ttl=0", "")
	eventually(t, "the directory to expire", func() bool {
		return ask(s.Handler(), "GET", "/v2/keys/d/k", "").code == http.StatusNotFound
	})
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain for " + what)
		}
	}
}

func TestReadOnlyServerExpiresNothing(t *testing.T) {
	dir := create(t)
	s := open(t, dir, server.Options{})
	ask(s.Handler(), "PUT", "/v2/keys/short?ttl=1", "value=x")
	closeServer(t, s)
	time.Sleep(1100 * time.Millisecond)
	reader := open(t, dir, server.Options{ReadOnly: true, SyncInterval: time.Millisecond})
	time.Sleep(50 * time.Millisecond)
	wantKeys(t, reader, "/short")
}

func TestHistoryIsBounded(t *testing.T) {
	s := newServer(t, server.Options{})
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for range 140 {
				ask(s.Handler(), "PUT", "/v2/keys/a", "value=x")
			}
		})
	}
	writers.Wait()
	got := ask(s.Handler(), "GET", "/v2/keys/a?wait=true&waitIndex=2", "")
	if got.code != http.StatusBadRequest || !strings.Contains(got.body, `"errorCode":401`) {
		t.Errorf("got %d %s", got.code, got.body)
	}
}

// listen serves on a port of the kernel's choice.
func listen(t *testing.T, s *server.Server) (address string, served <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	return l.Addr().String(), done
}

func TestCloseEndsWatches(t *testing.T) {
	s := newServer(t, server.Options{})
	address, served := listen(t, s)
	resp, err := http.Get("http://" + address + "/v2/keys/a?wait=true&stream=true")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	mustPut(t, s, "/a")
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil || !strings.Contains(line, `"key":"/a"`) {
		t.Fatalf("watch: %q, %v", line, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Errorf("the watch was cut off: %v", err)
	}
	if got := ask(s.Handler(), "PUT", "/v2/keys/b", "value=x"); got.code != http.StatusInternalServerError {
		t.Errorf("a write after Close: %d %s", got.code, got.body)
	}
}

func TestClientsAreToldWhereTheServerIs(t *testing.T) {
	for _, opts := range []server.Options{{}, {ReadOnly: true}} {
		s := newServer(t, opts)
		address, _ := listen(t, s)
		eventually(t, "the URL to be published", func() bool {
			return ask(s.Handler(), "GET", "/v2/machines", "").body == "http://"+address
		})
		list := members(t, ask(s.Handler(), "GET", "/v2/members", "").body)
		if len(list.Members) != 1 || list.Members[0].Name != "default" {
			t.Errorf("members %v", list)
		}
	}
}

// Adding a member neither stops this server nor needs the member.
func TestMembersComeAndGo(t *testing.T) {
	s := newServer(t, server.Options{})
	address, _ := listen(t, s)
	eventually(t, "the URL to be published", func() bool {
		return ask(s.Handler(), "GET", "/v2/machines", "").body == "http://"+address
	})
	const body = `{"peerURLs":["http://10.0.0.1:2380"]}`
	added := ask(s.Handler(), "POST", "/v2/members", body, "Content-Type", "application/json")
	if added.code != http.StatusCreated {
		t.Fatalf("add: %d %s", added.code, added.body)
	}
	mustPut(t, s, "/still-alive")
	again := ask(s.Handler(), "POST", "/v2/members", body, "Content-Type", "application/json")
	if again.code != http.StatusInternalServerError {
		t.Errorf("a third of which two never started: %d %s", again.code, again.body)
	}
	list := members(t, ask(s.Handler(), "GET", "/v2/members", "").body).Members
	if len(list) != 2 {
		t.Fatalf("members %v", list)
	}
	for _, m := range list {
		want := http.StatusNoContent
		if m.Name != "" {
			want = http.StatusInternalServerError // the one that is left
		}
		if got := ask(s.Handler(), "DELETE", "/v2/members/"+m.ID, ""); got.code != want {
			t.Errorf("remove %v: %d %s", m, got.code, got.body)
		}
		if m.Name != "" {
			continue
		}
		if got := ask(s.Handler(), "DELETE", "/v2/members/"+m.ID, ""); got.code != http.StatusGone {
			t.Errorf("remove %v again: %d %s", m, got.code, got.body)
		}
	}
	mustPut(t, s, "/and-well")
}

func TestCORSOnlyIfAsked(t *testing.T) {
	for _, tt := range []struct {
		cors         []string
		origin, want string
	}{
		{nil, "http://page", ""},
		{[]string{"*"}, "http://page", "*"},
		{[]string{"http://page"}, "http://page", "http://page"},
		{[]string{"http://page"}, "http://other", ""},
	} {
		s := newServer(t, server.Options{CORS: tt.cors})
		got := ask(s.Handler(), "GET", "/v2/keys/", "", "Origin", tt.origin)
		if origin := got.header.Get("Access-Control-Allow-Origin"); origin != tt.want {
			t.Errorf("%v asked from %s: allowed %q, want %q", tt.cors, tt.origin, origin, tt.want)
		}
	}
}

func TestCertificateNamesTheUser(t *testing.T) {
	authority := newAuthority(t)
	s := newServer(t, server.Options{TLS: &tls.Config{
		Certificates: []tls.Certificate{authority.issue(t, "server")},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    authority.pool,
	}})
	address, _ := listen(t, s)
	for _, setup := range []struct{ target, body string }{
		{"/v2/auth/users/root", `{"user":"root","password":"p"}`},
		{"/v2/auth/roles/guest", `{"role":"guest","permissions":{"kv":{"read":[],"write":[]}}}`},
		{"/v2/auth/enable", ""},
	} {
		if got := ask(s.Handler(), "PUT", setup.target, setup.body); got.code/100 != 2 {
			t.Fatalf("%s: %d %s", setup.target, got.code, got.body)
		}
	}
	for name, want := range map[string]int{"root": http.StatusCreated, "stranger": http.StatusUnauthorized} {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
			RootCAs: authority.pool, Certificates: []tls.Certificate{authority.issue(t, name)},
		}}}
		req, err := http.NewRequest("PUT", "https://"+address+"/v2/keys/"+name+"?value=x", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", name, resp.Status, want)
		}
	}
	if _, err := http.Get("https://" + address + "/version"); err == nil {
		t.Error("a client without a certificate got through")
	}
}

// authority signs certificates for the test.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pool        *x509.CertPool
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, der := sign(t, template, template, nil)
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	return authority{certificate, key, pool}
}

func (a authority) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	key, der := sign(t, template, a.certificate, a.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// sign makes a key and a certificate, signed by itself if there is no signer.
func sign(t *testing.T, template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

func TestManyWritersAndReaders(t *testing.T) {
	dir := create(t)
	s := open(t, dir, server.Options{SnapshotCount: 100, SyncInterval: 5 * time.Millisecond})
	var clients sync.WaitGroup
	for c := range 8 {
		clients.Go(func() {
			for i := range 30 {
				key := fmt.Sprintf("/v2/keys/c%d/%d", c, i)
				ask(s.Handler(), "PUT", key, "value=x&ttl=100")
				ask(s.Handler(), "PUT", fmt.Sprintf("/v2/keys/c%d?dir=true&prevExist=true&ttl=1000", c), "")
				ask(s.Handler(), "GET", "/v2/keys/?recursive=true", "")
				ask(s.Handler(), "GET", key+"?wait=true&waitIndex=1&recursive=true", "")
				ask(s.Handler(), "GET", "/v2/stats/store", "")
			}
		})
	}
	clients.Wait()
	want := withoutTTL(t, ask(s.Handler(), "GET", "/v2/keys/?recursive=true&sorted=true", "").body)
	closeServer(t, s)
	again := open(t, dir, server.Options{ReadOnly: true})
	if got := withoutTTL(t, ask(again.Handler(), "GET", "/v2/keys/?recursive=true&sorted=true", "").body); got != want {
		t.Errorf("after a restart %d bytes, want %d", len(got), len(want))
	}
}
