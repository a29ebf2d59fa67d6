package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/scheduler"
)

// TestAskDaemonForDrill wants the drill's own path, not a job with a slash.
func TestAskDaemonForDrill(t *testing.T) {
	asked := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.EscapedPath()
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"run_id": "some"}`)
	}))
	defer server.Close()
	config := scheduler.HTTPConfig{Listen: scheduler.Address(strings.TrimPrefix(server.URL, "http://"))}
	for job, want := range map[string]string{
		"nightly":       "POST /api/v1/jobs/nightly/run",
		"nightly/drill": "POST /api/v1/jobs/nightly/drill/run",
		"a b":           "POST /api/v1/jobs/a%20b/run",
	} {
		if id, err := askDaemon(t.Context(), config, job); err != nil || id != "some" || asked != want {
			t.Errorf("%s: id %q, error %v, asked %s, want %s", job, id, err, asked, want)
		}
	}
}
