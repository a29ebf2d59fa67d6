package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/v2error"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// keyRequest is a request on /v2/keys.
type keyRequest struct {
	walcodec.Request
	noValue bool // noValueOnSuccess
}

func (a *api) serveKeys(w http.ResponseWriter, r *http.Request) {
	if !allowMethod(w, r, "HEAD", "GET", "PUT", "POST", "DELETE") {
		return
	}
	w.Header().Set("X-Etcd-Cluster-ID", a.engine.cluster.id.String())
	req, err := parseKeyRequest(r, time.Now())
	if err != nil {
		a.writeKeyError(w, err)
		return
	}
	if !a.mayAccessKey(r, r.URL.Path[len(keysRoute):], req.Recursive) {
		a.writeStoreError(w, v2error.NewError(v2error.EcodeUnauthorized, "Insufficient credentials", 0))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	resp, err := a.engine.do(ctx, req.Request)
	switch {
	case err != nil:
		a.writeKeyError(w, err)
	case resp.watcher != nil:
		a.serveWatch(w, r, resp, req.Stream)
	default:
		a.writeKeyEvent(w, resp, req.noValue)
	}
}

// form reads options and remembers the first one that is wrong.
type form struct {
	values url.Values
	err    error
}

func (f *form) fail(code int, cause string) {
	if f.err == nil {
		f.err = v2error.NewError(code, cause, 0)
	}
}

func (f *form) first(name string) (string, bool) {
	values, ok := f.values[name]
	if !ok || len(values) == 0 {
		return "", false
	}
	return values[0], true
}

func (f *form) number(name string, code int) uint64 {
	value, ok := f.first(name)
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		f.fail(code, `invalid value for "`+name+`"`)
	}
	return n
}

func (f *form) truth(name, quote string) *bool {
	value, ok := f.first(name)
	if !ok {
		return nil
	}
	b, err := strconv.ParseBool(value)
	if err != nil {
		f.fail(v2error.EcodeInvalidField, "invalid value for "+quote+name+quote)
	}
	return &b
}

func (f *form) flag(name string) bool {
	b := f.truth(name, `"`)
	return b != nil && *b
}

// parseKeyRequest checks options in the order in which etcd does, which shows
// when several are wrong.
func parseKeyRequest(r *http.Request, now time.Time) (keyRequest, error) {
	if err := r.ParseForm(); err != nil {
		return keyRequest{}, v2error.NewError(v2error.EcodeInvalidForm, err.Error(), 0)
	}
	f := &form{values: r.Form}
	req := keyRequest{Request: walcodec.Request{
		Method: r.Method,
		Path:   path.Join(keysPrefix, r.URL.Path[len(keysRoute):]),
	}}
	req.PrevIndex = f.number("prevIndex", v2error.EcodeIndexNaN)
	req.Since = f.number("waitIndex", v2error.EcodeIndexNaN)
	req.Recursive, req.Sorted, req.Wait = f.flag("recursive"), f.flag("sorted"), f.flag("wait")
	req.Dir, req.Quorum, req.Stream = f.flag("dir"), f.flag("quorum"), f.flag("stream")
	if req.Wait && r.Method != http.MethodGet {
		f.fail(v2error.EcodeInvalidField, `"wait" can only be used with GET requests`)
	}
	prevValue, given := f.first("prevValue")
	if given && prevValue == "" {
		f.fail(v2error.EcodePrevValueRequired, `"prevValue" cannot be empty`)
	}
	req.PrevValue = prevValue
	req.noValue = f.flag("noValueOnSuccess")
	ttl := f.expiration(&req.Request, now)
	req.PrevExist = f.truth("prevExist", "")
	req.Refresh = f.truth("refresh", "")
	req.Val, _ = f.first("value")
	if req.Refresh != nil && *req.Refresh {
		f.checkRefresh(req.Val, ttl)
	}
	return req, f.err
}

// expiration sets when the key expires, and tells whether a time to live was
// given: an empty one counts as none.
func (f *form) expiration(r *walcodec.Request, now time.Time) bool {
	if value, _ := f.first("ttl"); value == "" {
		return false
	}
	seconds := f.number("ttl", v2error.EcodeTTLNaN)
	r.Expiration = now.Add(time.Duration(seconds) * time.Second).UnixNano()
	return true
}

func (f *form) checkRefresh(value string, ttl bool) {
	if value != "" {
		f.fail(v2error.EcodeRefreshValue, "A value was provided on a refresh")
	}
	if !ttl {
		f.fail(v2error.EcodeRefreshTTLRequired, "No TTL value set")
	}
}

func setIndexes(w http.ResponseWriter, store uint64, resp response) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Etcd-Index", strconv.FormatUint(store, 10))
	h.Set("X-Raft-Index", strconv.FormatUint(resp.index, 10))
	h.Set("X-Raft-Term", strconv.FormatUint(resp.term, 10))
}

func (a *api) writeKeyEvent(w http.ResponseWriter, resp response, noValue bool) {
	if resp.event == nil {
		a.writeKeyError(w, errors.New("received response with no Event/Watcher"))
		return
	}
	setIndexes(w, resp.event.EtcdIndex, resp)
	if resp.event.IsCreated() {
		w.WriteHeader(http.StatusCreated)
	}
	ev := a.engine.publicEvent(resp.event)
	switch ev.Action {
	case v2store.Set, v2store.CompareAndSwap, v2store.Create, v2store.Update:
		if noValue {
			ev.Node, ev.PrevNode = nil, nil
		}
	}
	a.writeJSON(w, ev)
}

func (a *api) writeKeyError(w http.ResponseWriter, err error) {
	var e *v2error.Error
	if errors.As(err, &e) {
		public := *e
		public.Cause = strings.TrimPrefix(e.Cause, keysPrefix)
		a.writeStoreError(w, &public)
		return
	}
	a.engine.log.Warn("request on keys not carried out", "error", err)
	a.writeStoreError(w, v2error.NewError(v2error.EcodeRaftInternal, err.Error(), 0))
}

// publicEvent is a copy with the keys as clients name them.
func (e *v2Engine) publicEvent(ev *v2store.Event) *v2store.Event {
	ev = e.cloneEvent(ev)
	trimKeys(ev.Node)
	trimKeys(ev.PrevNode)
	return ev
}

func trimKeys(n *v2store.NodeExtern) {
	if n == nil {
		return
	}
	n.Key = strings.TrimPrefix(n.Key, keysPrefix)
	for _, child := range n.Nodes {
		trimKeys(child)
	}
}

// serveWatch waits for one event, or sends them as they come. It ends without
// a word when the client leaves, the server closes, or the client is too slow.
func (a *api) serveWatch(w http.ResponseWriter, r *http.Request, resp response, stream bool) {
	defer resp.watcher.Remove()
	setIndexes(w, resp.watcher.StartIndex(), resp)
	w.WriteHeader(http.StatusOK)
	flusher := http.NewResponseController(w)
	encoder := json.NewEncoder(w)
	for {
		if err := flusher.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-a.engine.ending:
			return
		case ev, ok := <-resp.watcher.EventChan():
			if !ok || encoder.Encode(a.engine.publicEvent(ev)) != nil || !stream {
				return
			}
		}
	}
}
