package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
)

// memberJSON is a member as clients see it.
type memberJSON struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
}

func publicMember(m membership.Member) memberJSON {
	return memberJSON{
		ID: m.ID.String(), Name: m.Name,
		PeerURLs:   append([]string{}, m.PeerURLs...),
		ClientURLs: append([]string{}, m.ClientURLs...),
	}
}

func (a *api) serveMembers(w http.ResponseWriter, r *http.Request) {
	if !allowMethod(w, r, "GET", "POST", "DELETE", "PUT") {
		return
	}
	if !a.mayWriteAsRoot(r) {
		a.writeError(w, r, errNoAuth)
		return
	}
	w.Header().Set("X-Etcd-Cluster-ID", a.engine.cluster.id.String())
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	rest := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, membersRoute), "/")
	switch r.Method {
	case http.MethodGet:
		a.listMembers(w, r, rest)
	case http.MethodPost:
		a.addMember(ctx, w, r)
	case http.MethodDelete:
		a.changeMember(w, r, rest, func(id types.ID) error { return a.engine.removeMember(ctx, id) })
	case http.MethodPut:
		a.changeMember(w, r, rest, func(id types.ID) error { return a.updateMember(ctx, r, id) })
	}
}

func (a *api) listMembers(w http.ResponseWriter, r *http.Request, what string) {
	all := a.engine.members()
	var answer any
	switch what {
	case "":
		list := struct {
			Members []memberJSON `json:"members"`
		}{Members: []memberJSON{}}
		for _, m := range all {
			list.Members = append(list.Members, publicMember(m))
		}
		answer = list
	case "leader":
		i := slices.IndexFunc(all, func(m membership.Member) bool { return m.ID == a.engine.id })
		if i < 0 {
			a.writeError(w, r, &httpError{http.StatusServiceUnavailable, "During election"})
			return
		}
		answer = publicMember(all[i])
	default:
		a.writeError(w, r, &httpError{http.StatusNotFound, "Not found"})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	a.writeJSON(w, answer)
}

func (a *api) addMember(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	urls, err := peerURLs(r)
	if err != nil {
		a.writeError(w, r, err)
		return
	}
	now := time.Now()
	m := membership.NewMember("", urls, "", &now)
	if err := a.engine.addMember(ctx, *m); err != nil {
		a.writeError(w, r, memberError(err, m.ID))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	a.writeJSON(w, publicMember(*m))
}

func (a *api) updateMember(ctx context.Context, r *http.Request, id types.ID) error {
	urls, err := peerURLs(r)
	if err != nil {
		return err
	}
	return a.engine.updateMember(ctx, membership.Member{
		ID: id, RaftAttributes: membership.RaftAttributes{PeerURLs: urls.StringSlice()},
	})
}

// changeMember carries out a change of the member that the path names.
func (a *api) changeMember(w http.ResponseWriter, r *http.Request, name string, change func(types.ID) error) {
	if name == "" {
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	id, err := types.IDFromString(name)
	if err != nil {
		a.writeError(w, r, &httpError{http.StatusNotFound, "No such member: " + name})
		return
	}
	if err := change(id); err != nil {
		a.writeError(w, r, memberError(err, id))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func memberError(err error, id types.ID) error {
	switch {
	case errors.Is(err, membership.ErrIDExists), errors.Is(err, membership.ErrPeerURLexists):
		return &httpError{http.StatusConflict, err.Error()}
	case errors.Is(err, membership.ErrIDRemoved):
		return &httpError{http.StatusGone, fmt.Sprintf("Member permanently removed: %s", id)}
	case errors.Is(err, membership.ErrIDNotFound):
		return &httpError{http.StatusNotFound, fmt.Sprintf("No such member: %s", id)}
	}
	return err
}

// peerURLs reads the body of an add or an update.
func peerURLs(r *http.Request) (types.URLs, error) {
	kind := r.Header.Get("Content-Type")
	if before, _, ok := strings.Cut(kind, ";"); ok {
		kind = strings.TrimSpace(strings.ToLower(before))
	}
	if kind != "application/json" {
		return nil, &httpError{http.StatusUnsupportedMediaType, fmt.Sprintf("Bad Content-Type %s, accept application/json", kind)}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxJSON))
	if err != nil {
		return nil, &httpError{http.StatusBadRequest, err.Error()}
	}
	var in struct {
		PeerURLs []string `json:"peerURLs"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, &httpError{http.StatusBadRequest, err.Error()}
	}
	urls, err := types.NewURLs(in.PeerURLs)
	if err != nil {
		return nil, &httpError{http.StatusBadRequest, err.Error()}
	}
	return urls, nil
}

// maxJSON is how much of a body that describes members, users or roles is
// read, in bytes.
const maxJSON = 10 << 20

func (a *api) serveMachines(w http.ResponseWriter, r *http.Request) {
	if !allowMethod(w, r, "GET", "HEAD") {
		return
	}
	var urls []string
	for _, m := range a.engine.members() {
		urls = append(urls, m.ClientURLs...)
	}
	slices.Sort(urls)
	a.write(w, []byte(strings.Join(urls, ", ")))
}
