package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// errNoAuth answers all but requests on keys.
var errNoAuth = &httpError{http.StatusUnauthorized, "Insufficient credentials"}

func reads(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// mayWriteAsRoot lets everyone read, and only root write.
func (a *api) mayWriteAsRoot(r *http.Request) bool { return reads(r) || a.isRoot(r) }

// isRoot lets everyone through while auth is off.
func (a *api) isRoot(r *http.Request) bool {
	if !a.auth.enabled(r.Context()) {
		return true
	}
	u, ok := a.caller(r)
	return ok && slices.Contains(u.Roles, rootName)
}

// mayAccessKey asks the caller's roles; who comes without a name is a guest.
func (a *api) mayAccessKey(r *http.Request, key string, recursive bool) bool {
	ctx := r.Context()
	if !a.auth.enabled(ctx) {
		return true
	}
	wanted := access{key: key, write: !reads(r), recursive: recursive}
	u, known := a.caller(r)
	switch {
	case known:
		return a.anyRoleAllows(ctx, u.Roles, wanted)
	case r.Header.Get("Authorization") != "":
		return false
	}
	wanted.recursive = false // as etcd has it: a guest's exact key opens what is below
	guest, err := a.auth.role(ctx, local, guestName)
	return err == nil && guest.allows(wanted)
}

func (a *api) anyRoleAllows(ctx context.Context, names []string, wanted access) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		r, err := a.auth.role(ctx, local, name)
		return err == nil && r.allows(wanted)
	})
}

// caller is who the password or the certificate says.
func (a *api) caller(r *http.Request) (user, bool) {
	if r.Header.Get("Authorization") == "" {
		return a.certified(r)
	}
	name, password, ok := r.BasicAuth()
	if !ok {
		return user{}, false
	}
	u, err := a.auth.user(r.Context(), local, name)
	if err != nil || bcrypt.CompareHashAndPassword([]byte(u.Password), []byte(password)) != nil {
		return user{}, false
	}
	return u, true
}

// certified is the user that a verified certificate has for its common name.
func (a *api) certified(r *http.Request) (user, bool) {
	if r.TLS == nil {
		return user{}, false
	}
	for _, chain := range r.TLS.VerifiedChains {
		for _, certificate := range chain {
			if u, err := a.auth.user(r.Context(), local, certificate.Subject.CommonName); err == nil {
				return u, true
			}
		}
	}
	return user{}, false
}

// resource is the user or role that a path names below dir: "" for the list.
func resource(r *http.Request, dir string) (string, error) {
	rest := strings.TrimPrefix(path.Clean(r.URL.Path), authRoute+"/"+dir)
	name := strings.TrimPrefix(rest, "/")
	if strings.Contains(name, "/") {
		return "", &httpError{http.StatusBadRequest, "Invalid path"}
	}
	return name, nil
}

// serveRoot calls fn for a resource if the caller is root, and answers errors.
func (a *api) serveRoot(w http.ResponseWriter, r *http.Request, fn func(context.Context) error) {
	if !a.isRoot(r) {
		a.writeError(w, r, errNoAuth)
		return
	}
	a.setHeader(w)
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	if err := fn(ctx); err != nil {
		a.writeError(w, r, err)
	}
}

func (a *api) serveRoles(w http.ResponseWriter, r *http.Request) {
	name, err := resource(r, "roles")
	switch {
	case err != nil:
		a.writeError(w, r, err)
	case name == "":
		if allowMethod(w, r, "GET") {
			a.serveRoot(w, r, func(ctx context.Context) error { return a.listRoles(ctx, w) })
		}
	case allowMethod(w, r, "GET", "PUT", "DELETE"):
		a.serveRoot(w, r, func(ctx context.Context) error { return a.serveRole(ctx, w, r, name) })
	}
}

func (a *api) listRoles(ctx context.Context, w http.ResponseWriter) error {
	names, err := a.auth.roleNames(ctx)
	if err != nil {
		return err
	}
	var list struct {
		Roles []role `json:"roles"`
	}
	for _, name := range names {
		r, err := a.auth.role(ctx, local, name)
		if err != nil {
			return err
		}
		list.Roles = append(list.Roles, r)
	}
	a.writeJSON(w, list)
	return nil
}

func (a *api) serveRole(ctx context.Context, w http.ResponseWriter, r *http.Request, name string) error {
	switch r.Method {
	case http.MethodPut:
		return a.putRole(ctx, w, r, name)
	case http.MethodDelete:
		return a.auth.deleteRole(ctx, name)
	}
	found, err := a.auth.role(ctx, local, name)
	if err == nil {
		a.writeJSON(w, found)
	}
	return err
}

func decodeBody(r *http.Request, v any) error {
	if err := json.NewDecoder(io.LimitReader(r.Body, maxJSON)).Decode(v); err != nil {
		return &httpError{http.StatusBadRequest, "Invalid JSON in request body."}
	}
	return nil
}

func (a *api) putRole(ctx context.Context, w http.ResponseWriter, r *http.Request, name string) error {
	var in role
	if err := decodeBody(r, &in); err != nil {
		return err
	}
	if in.Role != name {
		return &httpError{http.StatusBadRequest, "Role JSON name does not match the name in the URL"}
	}
	if in.Grant.empty() && in.Revoke.empty() {
		if err := a.auth.createRole(ctx, in); err != nil {
			return err
		}
		w.WriteHeader(http.StatusCreated)
		a.writeJSON(w, in)
		return nil
	}
	if !in.Permissions.empty() {
		return &httpError{http.StatusBadRequest, "Role JSON contains both permissions and grant/revoke"}
	}
	out, err := a.auth.updateRole(ctx, in)
	if err == nil {
		a.writeJSON(w, out)
	}
	return err
}

func (a *api) serveUsers(w http.ResponseWriter, r *http.Request) {
	name, err := resource(r, "users")
	switch {
	case err != nil:
		a.writeError(w, r, err)
	case name == "":
		if allowMethod(w, r, "GET") {
			a.serveRoot(w, r, func(ctx context.Context) error { return a.listUsers(ctx, w) })
		}
	case allowMethod(w, r, "GET", "PUT", "DELETE"):
		a.serveRoot(w, r, func(ctx context.Context) error { return a.serveUser(ctx, w, r, name) })
	}
}

// userJSON is a user as clients see it: roles in full, no password.
type userJSON struct {
	User  string `json:"user"`
	Roles []role `json:"roles,omitempty"`
}

func (a *api) listUsers(ctx context.Context, w http.ResponseWriter) error {
	names, err := a.auth.names(ctx, "users")
	if err != nil {
		return err
	}
	var list struct {
		Users []userJSON `json:"users"`
	}
	for _, name := range names {
		u, err := a.auth.user(ctx, local, name)
		if err != nil {
			return err
		}
		public := userJSON{User: u.User}
		for _, name := range u.Roles {
			if r, err := a.auth.role(ctx, local, name); err == nil {
				public.Roles = append(public.Roles, r)
			}
		}
		list.Users = append(list.Users, public)
	}
	a.writeJSON(w, list)
	return nil
}

func (a *api) serveUser(ctx context.Context, w http.ResponseWriter, r *http.Request, name string) error {
	switch r.Method {
	case http.MethodPut:
		return a.putUser(ctx, w, r, name)
	case http.MethodDelete:
		return a.auth.deleteUser(ctx, name)
	}
	u, err := a.auth.user(ctx, local, name)
	if err != nil {
		return err
	}
	public := userJSON{User: u.User}
	for _, name := range u.Roles {
		r, err := a.auth.role(ctx, local, name)
		if err != nil {
			return err
		}
		public.Roles = append(public.Roles, r)
	}
	a.writeJSON(w, public)
	return nil
}

func (a *api) putUser(ctx context.Context, w http.ResponseWriter, r *http.Request, name string) error {
	var in user
	if err := decodeBody(r, &in); err != nil {
		return err
	}
	if in.User != name {
		return &httpError{http.StatusBadRequest, "User JSON name does not match the name in the URL"}
	}
	out, created, err := a.storeUser(ctx, in)
	if err != nil {
		return err
	}
	if created {
		w.WriteHeader(http.StatusCreated)
	}
	out.Password = ""
	a.writeJSON(w, out)
	return nil
}

// storeUser tells from the fields what is wanted. With roles it is a new user,
// though etcd does not answer so.
func (a *api) storeUser(ctx context.Context, in user) (out user, created bool, err error) {
	changes := len(in.Grant) > 0 || len(in.Revoke) > 0
	switch {
	case changes && len(in.Roles) > 0:
		return in, false, &httpError{http.StatusBadRequest, "User JSON contains both roles and grant/revoke"}
	case changes:
		out, err = a.auth.updateUser(ctx, in)
	case len(in.Roles) > 0:
		out, err = a.auth.createUser(ctx, in)
	default:
		return a.auth.putUser(ctx, in)
	}
	return out, false, err
}

func (a *api) serveAuthEnabled(w http.ResponseWriter, r *http.Request) {
	if !allowMethod(w, r, "GET", "PUT", "DELETE") {
		return
	}
	if !a.mayWriteAsRoot(r) {
		a.writeError(w, r, errNoAuth)
		return
	}
	a.setHeader(w)
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	var err error
	switch r.Method {
	case http.MethodPut:
		err = a.auth.enable(ctx)
	case http.MethodDelete:
		err = a.auth.disable(ctx)
	default:
		a.writeJSON(w, map[string]bool{"enabled": a.auth.enabled(ctx)})
	}
	if err != nil {
		a.writeError(w, r, err)
	}
}
