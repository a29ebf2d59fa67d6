package scheduler

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"time"
)

const (
	// loopStands is how long after its time a run may not have started before
	// the daemon is held to stand still: more than any look at the clock takes.
	loopStands = 10 * time.Minute
	// statusTimeout is how long the daemon may take to say how it does.
	statusTimeout = 5 * time.Second
)

// api answers what is asked of the daemon over HTTP.
type api struct {
	config     HTTPConfig
	controller Controller
	log        *slog.Logger
}

// newHandler answers health checks, metrics and /api/v1.
func newHandler(cfg HTTPConfig, c Controller, log *slog.Logger) http.Handler {
	a := &api{cfg, c, log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", a.healthy)
	mux.HandleFunc("GET /readyz", a.ready)
	mux.Handle("GET /metrics", a.authorized(metricsHandler(c, runtime.Version()).ServeHTTP))
	mux.Handle("GET /api/v1/status", a.authorized(a.status))
	mux.Handle("GET /api/v1/jobs", a.authorized(a.jobs))
	mux.Handle("GET /api/v1/jobs/{job}", a.authorized(a.job))
	mux.Handle("GET /api/v1/jobs/{job}/runs", a.authorized(a.runs))
	mux.Handle("GET /api/v1/jobs/{job}/backups", a.authorized(a.backups))
	mux.Handle("GET /api/v1/runs", a.authorized(a.allRuns))
	mux.Handle("POST /api/v1/jobs/{job}/run", a.authorized(a.trigger("")))
	mux.Handle("POST /api/v1/jobs/{job}/drill/run", a.authorized(a.trigger("/drill")))
	// Web pages of elsewhere may not have a browser start runs.
	return a.knownHost(http.NewCrossOriginProtection().Handler(jsonErrors(mux)))
}

// knownHost refuses names that lead here by DNS rebinding: a web page's script
// could else read what only this machine is to see.
func (a *api) knownHost(next http.Handler) http.Handler {
	if !a.config.Listen.Loopback() {
		return next
	}
	listen, _, _ := net.SplitHostPort(string(a.config.Listen))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host := hostName(r.Host); host != listen && !isLoopback(host) {
			writeError(w, http.StatusMisdirectedRequest, "this server is not known by that name")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostName is a Host header without port and brackets.
func hostName(header string) string {
	host, _, err := net.SplitHostPort(header)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(header, "["), "]")
	}
	return strings.ToLower(host)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// authorized asks for the token, if there is one. It is read for each request:
// its file may have been replaced.
func (a *api) authorized(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, err := a.config.Token.Read()
		switch {
		case err != nil:
			a.log.Error("request refused: the token can't be read", "error", err)
			writeError(w, http.StatusInternalServerError, "the daemon's token can't be read; its log says why")
		case !a.config.Token.IsZero() && !carries(r, token.Reveal()):
			w.Header().Set("WWW-Authenticate", `Bearer realm="lifeboat"`)
			writeError(w, http.StatusUnauthorized, "want the token as Authorization: Bearer …")
		default:
			next(w, r)
		}
	})
}

// carries tells whether a request carries the token. How long that takes tells
// nothing of the token.
func carries(r *http.Request, token string) bool {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	a, b := sha256.Sum256([]byte(strings.TrimSpace(given))), sha256.Sum256([]byte(token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// ask is the daemon's status, unless it doesn't answer in time.
func (a *api) ask(ctx context.Context) (Status, error) {
	answer := make(chan Status, 1)
	go func() { answer <- a.controller.Status() }() // ends with the daemon at the latest
	timer := time.NewTimer(statusTimeout)
	defer timer.Stop()
	select {
	case s := <-answer:
		return s, nil
	case <-timer.C:
		return Status{}, errors.New("the daemon does not answer")
	case <-ctx.Done():
		return Status{}, ctx.Err()
	}
}

// health is the body of /healthz and /readyz.
type health struct {
	OK       bool     `json:"ok"`
	Problems []string `json:"problems,omitempty"`
}

func (a *api) healthy(w http.ResponseWriter, r *http.Request) {
	s, err := a.ask(r.Context())
	if err != nil {
		a.writeHealth(w, []string{err.Error()})
		return
	}
	a.writeHealth(w, standing(s, time.Now()))
}

// standing are the jobs whose time has come long ago and that don't run.
func standing(s Status, now time.Time) []string {
	var problems []string
	if s.Stopping {
		return nil
	}
	for _, j := range s.Jobs {
		for _, r := range []*RunsStatus{&j.RunsStatus, j.Drill} {
			if r != nil && r.Running == nil && !r.Next.IsZero() && now.Sub(r.Next) > loopStands {
				problems = append(problems, "job "+j.Name+" was to run at "+r.Next.Format(time.RFC3339)+" and has not started")
			}
		}
	}
	return problems
}

func (a *api) ready(w http.ResponseWriter, r *http.Request) {
	s, err := a.ask(r.Context())
	if err != nil {
		a.writeHealth(w, []string{err.Error()})
		return
	}
	a.writeHealth(w, notReady(s))
}

// notReady is what the daemon has not done yet: it reads its configuration, and
// opens each repository once. One that fails later is what metrics are for.
func notReady(s Status) []string {
	var problems []string
	if s.Stopping {
		problems = append(problems, "the daemon is stopping")
	}
	if s.ConfigLoaded.IsZero() {
		problems = append(problems, "the configuration is not loaded")
	}
	for _, j := range s.Jobs {
		for _, r := range j.Repositories {
			if r.Checked.IsZero() || r.Error != "" && r.Newest == nil {
				problems = append(problems, "job "+j.Name+": repository "+r.Name+" was not opened yet")
			}
		}
	}
	return problems
}

// writeHealth says whether there are problems. It needs no token, so that it
// tells no errors of others, which may name places.
func (a *api) writeHealth(w http.ResponseWriter, problems []string) {
	code := http.StatusOK
	if len(problems) > 0 {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, health{len(problems) == 0, problems})
}

func (a *api) status(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, a.controller.Status())
}

func (a *api) jobs(w http.ResponseWriter, _ *http.Request) {
	jobs := a.controller.Status().Jobs
	if jobs == nil {
		jobs = []JobStatus{}
	}
	writeJSON(w, http.StatusOK, map[string]any{"jobs": jobs})
}

// find is the job that the path names; if there is none, it has answered so.
func (a *api) find(w http.ResponseWriter, r *http.Request) (JobStatus, bool) {
	for _, j := range a.controller.Status().Jobs {
		if j.Name == r.PathValue("job") {
			return j, true
		}
	}
	writeError(w, http.StatusNotFound, "there is no job of that name")
	return JobStatus{}, false
}

func (a *api) job(w http.ResponseWriter, r *http.Request) {
	if j, ok := a.find(w, r); ok {
		writeJSON(w, http.StatusOK, j)
	}
}

func (a *api) runs(w http.ResponseWriter, r *http.Request) {
	if j, ok := a.find(w, r); ok {
		writeRuns(w, a.controller.Runs(j.Name))
	}
}

// backups lists what the job's repositories hold now.
func (a *api) backups(w http.ResponseWriter, r *http.Request) {
	j, ok := a.find(w, r)
	if !ok {
		return
	}
	all, err := a.controller.Backups(r.Context(), j.Name)
	if err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"repositories": all})
}

func (a *api) allRuns(w http.ResponseWriter, _ *http.Request) { writeRuns(w, a.controller.Runs("")) }

func writeRuns(w http.ResponseWriter, runs []RunRecord) {
	if runs == nil {
		runs = []RunRecord{}
	}
	writeJSON(w, http.StatusOK, map[string]any{"runs": runs})
}

// trigger asks for a run of the job that the path names, with suffix, and does
// not wait for it.
func (a *api) trigger(suffix string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("job") + suffix
		id, err := a.controller.Trigger(name)
		switch {
		case errors.Is(err, ErrNoJob):
			writeError(w, http.StatusNotFound, "there is no job of that name")
		case errors.Is(err, ErrStopping):
			writeError(w, http.StatusServiceUnavailable, err.Error())
		case err != nil:
			writeError(w, http.StatusInternalServerError, err.Error())
		default:
			a.log.Info("run asked for over HTTP", "job", name, "run", id, "from", r.RemoteAddr)
			writeJSON(w, http.StatusAccepted, map[string]string{"run_id": id})
		}
	}
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // who asked may be gone
}

func writeError(w http.ResponseWriter, code int, text string) {
	writeJSON(w, code, map[string]any{"error": text, "status": code})
}

// jsonErrors has the errors of the mux, for paths and methods that it does not
// know, be JSON like all others.
func jsonErrors(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(&errorWriter{ResponseWriter: w}, r)
	})
}

// errorWriter makes JSON of an error in plain text.
type errorWriter struct{ http.ResponseWriter }

func (w *errorWriter) WriteHeader(code int) {
	text := strings.ToLower(http.StatusText(code))
	if allow := w.Header().Get("Allow"); allow != "" {
		text += ": want " + allow
	}
	w.Header().Del("Content-Length")
	writeError(w.ResponseWriter, code, text)
}

func (w *errorWriter) Write(b []byte) (int, error) { return len(b), nil }
