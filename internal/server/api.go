package server

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2error"
)

// serverVersion is the etcd whose v2 API this is.
const serverVersion = "3.4.0+lifeboat"

const (
	keysRoute     = "/v2/keys"
	membersRoute  = "/v2/members"
	machinesRoute = "/v2/machines"
	authRoute     = "/v2/auth"
)

// api is etcd's HTTP API of version 2 (etcdserver/api/v2http and etcdhttp, 3.4).
type api struct {
	engine *v2Engine
	auth   *authStore
	exact  map[string]http.Handler
	under  map[string]http.Handler // by the path's start, which ends in a slash
}

func newAPI(e *v2Engine) *api {
	a := &api{engine: e, auth: &authStore{engine: e}}
	keys, members := http.HandlerFunc(a.serveKeys), http.HandlerFunc(a.serveMembers)
	roles, users := http.HandlerFunc(a.serveRoles), http.HandlerFunc(a.serveUsers)
	a.exact = map[string]http.Handler{
		keysRoute:             keys,
		membersRoute:          members,
		machinesRoute:         http.HandlerFunc(a.serveMachines),
		"/v2/stats/store":     get(a.serveStoreStats),
		"/v2/stats/self":      get(a.serveSelfStats),
		"/v2/stats/leader":    get(a.serveLeaderStats),
		authRoute + "/roles":  roles,
		authRoute + "/users":  users,
		authRoute + "/enable": http.HandlerFunc(a.serveAuthEnabled),
		"/version":            get(a.serveVersion),
		"/health":             get(a.serveHealth),
		"/metrics":            promhttp.Handler(),
	}
	a.under = map[string]http.Handler{
		keysRoute + "/":       keys,
		membersRoute + "/":    members,
		authRoute + "/roles/": roles,
		authRoute + "/users/": users,
	}
	return a
}

// ServeHTTP routes as net/http did when etcd 3.4 was built: by the decoded
// path, which is redirected if it is not clean. Since Go 1.22 a ServeMux goes
// by the encoded one, and keys with encoded slashes would end elsewhere.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := cleanPath(r.URL.Path); p != r.URL.Path {
		to := url.URL{Path: p, RawQuery: r.URL.RawQuery}
		http.Redirect(w, r, to.String(), http.StatusMovedPermanently)
		return
	}
	a.route(r.URL.Path).ServeHTTP(w, r)
}

func (a *api) route(p string) http.Handler {
	if h, ok := a.exact[p]; ok {
		return h
	}
	for prefix, h := range a.under {
		if strings.HasPrefix(p, prefix) {
			return h
		}
	}
	return http.NotFoundHandler()
}

// cleanPath is p without empty, . and .. elements; a slash at the end stays.
func cleanPath(p string) string {
	clean := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

func get(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if allowMethod(w, r, http.MethodGet) {
			h(w, r)
		}
	}
}

// allowMethod answers itself if the method is none of these.
func allowMethod(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	w.Header().Set("Allow", strings.Join(methods, ","))
	http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	return false
}

// withCORS lets pages of these origins ask, as etcd's --cors.
func withCORS(origins []string, h http.Handler) http.Handler {
	if len(origins) == 0 {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if origin := allowedOrigin(origins, r.Header.Get("Origin")); origin != "" {
			w.Header().Add("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
			w.Header().Add("Access-Control-Allow-Origin", origin)
			w.Header().Add("Access-Control-Allow-Headers", "accept, content-type, authorization")
		}
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusOK)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func allowedOrigin(origins []string, asked string) string {
	switch {
	case slices.Contains(origins, "*"):
		return "*"
	case slices.Contains(origins, asked):
		return asked
	}
	return ""
}

// httpError is an answer with a message, of everything but keys.
type httpError struct {
	Code    int    `json:"-"` // HTTP status
	Message string `json:"message"`
}

func (e *httpError) Error() string { return e.Message }

// writeError answers with what the error knows of its status, or with 500 and
// nothing told.
func (a *api) writeError(w http.ResponseWriter, r *http.Request, err error) {
	var ofStore *v2error.Error
	if errors.As(err, &ofStore) {
		a.writeStoreError(w, ofStore)
		return
	}
	var known *httpError
	if !errors.As(err, &known) {
		a.engine.log.Warn("request not carried out", "method", r.Method, "path", r.URL.Path, "error", err)
		known = &httpError{http.StatusInternalServerError, "Internal Server Error"}
	}
	body, err := json.Marshal(known)
	if err != nil {
		a.engine.log.Warn("answer not encoded", "error", err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(known.Code)
	a.write(w, body)
}

func (a *api) writeStoreError(w http.ResponseWriter, e *v2error.Error) {
	if err := e.WriteTo(w); err != nil {
		a.engine.log.Debug("client gone", "error", err)
	}
}

func (a *api) write(w http.ResponseWriter, body []byte) {
	if _, err := w.Write(body); err != nil {
		a.engine.log.Debug("client gone", "error", err)
	}
}

func (a *api) writeJSON(w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		a.engine.log.Debug("answer not written", "error", err)
	}
}

// setHeader begins an answer in JSON.
func (a *api) setHeader(w http.ResponseWriter) {
	w.Header().Set("X-Etcd-Cluster-ID", a.engine.cluster.id.String())
	w.Header().Set("Content-Type", "application/json")
}
