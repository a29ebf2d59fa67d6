package server

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

func (a *api) serveStoreStats(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	a.write(w, a.engine.storeStats())
}

func (a *api) serveSelfStats(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	a.write(w, a.engine.stats.JSON())
}

func (a *api) serveLeaderStats(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	a.write(w, a.engine.leader.JSON())
}

func (a *api) serveVersion(w http.ResponseWriter, r *http.Request) {
	cluster := a.engine.cluster.clusterVersion()
	if cluster == "" {
		cluster = "not_decided"
	}
	body, err := json.Marshal(struct {
		Server  string `json:"etcdserver"`
		Cluster string `json:"etcdcluster"`
	}{serverVersion, cluster})
	if err != nil {
		a.writeError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	a.write(w, body)
}

// healthTimeout is how long a read through the log may take.
const healthTimeout = time.Second

func (a *api) serveHealth(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	if err := a.engine.healthy(ctx); err != nil {
		a.engine.log.Warn("not healthy", "error", err)
		http.Error(w, `{"health":"false"}`, http.StatusServiceUnavailable)
		return
	}
	a.write(w, []byte(`{"health":"true"}`))
}
