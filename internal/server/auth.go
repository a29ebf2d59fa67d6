package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/etcd/server/v3/etcdserver/api/v2error"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
	"golang.org/x/crypto/bcrypt"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Names that v2 auth gives a meaning (etcdserver/api/v2auth/auth.go).
const (
	rootName  = "root"
	guestName = "guest"
)

// user is a v2 user as the store holds it at /2/users, and as clients send it:
// they grant and revoke roles.
type user struct {
	User     string   `json:"user"`
	Password string   `json:"password,omitempty"` // stored as bcrypt's hash
	Roles    []string `json:"roles"`
	Grant    []string `json:"grant,omitempty"`
	Revoke   []string `json:"revoke,omitempty"`
}

// role is a v2 role as the store holds it at /2/roles, and as clients send it.
type role struct {
	Role        string       `json:"role"`
	Permissions permissions  `json:"permissions"`
	Grant       *permissions `json:"grant,omitempty"`
	Revoke      *permissions `json:"revoke,omitempty"`
}

type permissions struct {
	KV patterns `json:"kv"`
}

// patterns are keys, or beginnings of keys if they end in a star.
type patterns struct {
	Read  []string `json:"read"`
	Write []string `json:"write"`
}

func (p *permissions) empty() bool {
	return p == nil || len(p.KV.Read) == 0 && len(p.KV.Write) == 0
}

func everything(name string) role {
	all := []string{"/*"}
	return role{Role: name, Permissions: permissions{KV: patterns{Read: all, Write: all}}}
}

// authStore is v2 auth: users, roles and a switch, in the v2 store.
type authStore struct {
	engine *v2Engine

	mu    sync.Mutex
	ready bool // the directories are there
}

func authError(status int, format string, args ...any) error {
	return &httpError{status, "auth: " + fmt.Sprintf(format, args...)}
}

// refused tells whether the store refused with that code.
func refused(err error, code int) bool {
	var e *v2error.Error
	return errors.As(err, &e) && e.ErrorCode == code
}

// lookup reads from the store; through the log if what is read will be
// written again.
func (s *authStore) lookup(ctx context.Context, method, resource string) (*v2store.Event, error) {
	resp, err := s.engine.do(ctx, walcodec.Request{Method: method, Path: path.Join(authPrefix, resource)})
	return resp.event, err
}

func (s *authStore) load(ctx context.Context, method, resource string, v any) error {
	ev, err := s.lookup(ctx, method, resource)
	if err != nil {
		return err
	}
	if ev.Node.Value == nil {
		return fmt.Errorf("v2 store: %s: is a directory", ev.Node.Key)
	}
	return json.Unmarshal([]byte(*ev.Node.Value), v)
}

// Methods for lookup and load.
const (
	local   = "GET"
	through = "QGET"
)

func (s *authStore) create(ctx context.Context, resource string, v any) error {
	return s.put(ctx, resource, v, new(false))
}

func (s *authStore) update(ctx context.Context, resource string, v any) error {
	return s.put(ctx, resource, v, new(true))
}

func (s *authStore) put(ctx context.Context, resource string, v any, exists *bool) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	value, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = s.engine.do(ctx, walcodec.Request{
		Method: "PUT", Path: path.Join(authPrefix, resource), Val: string(value), PrevExist: exists,
	})
	return err
}

func (s *authStore) remove(ctx context.Context, resource string) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	_, err := s.engine.do(ctx, walcodec.Request{
		Method: "DELETE", Path: path.Join(authPrefix, resource), PrevExist: new(true),
	})
	return err
}

// prepare makes the directories and the switch, once.
func (s *authStore) prepare(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready {
		return nil
	}
	requests := []walcodec.Request{
		{Path: authPrefix, Dir: true},
		{Path: authPrefix + "/users/", Dir: true},
		{Path: authPrefix + "/roles/", Dir: true},
		{Path: authPrefix + "/enabled", Val: "false"},
	}
	for _, r := range requests {
		r.Method, r.PrevExist = "PUT", new(false)
		if _, err := s.engine.do(ctx, r); err != nil && !refused(err, v2error.EcodeNodeExist) {
			return err
		}
	}
	s.ready = true
	return nil
}

func (s *authStore) enabled(ctx context.Context) bool {
	var on bool
	err := s.load(ctx, local, "enabled", &on)
	if err != nil && !refused(err, v2error.EcodeKeyNotFound) {
		s.engine.log.Error("v2 auth: switch not readable", "error", err)
	}
	return on
}

// names lists the users or the roles.
func (s *authStore) names(ctx context.Context, dir string) ([]string, error) {
	ev, err := s.lookup(ctx, local, dir)
	if refused(err, v2error.EcodeKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range ev.Node.Nodes {
		names = append(names, path.Base(n.Key))
	}
	slices.Sort(names)
	return names, nil
}

func (s *authStore) roleNames(ctx context.Context) ([]string, error) {
	names, err := s.names(ctx, "roles")
	names = append(names, rootName)
	slices.Sort(names)
	return names, err
}

func (s *authStore) user(ctx context.Context, method, name string) (user, error) {
	var u user
	err := s.load(ctx, method, "users/"+name, &u)
	if refused(err, v2error.EcodeKeyNotFound) {
		return u, authError(http.StatusNotFound, "User %s does not exist.", name)
	}
	return u.withRoot(), err
}

// withRoot gives the user root the role root.
func (u user) withRoot() user {
	if u.User == rootName && !slices.Contains(u.Roles, rootName) {
		u.Roles = append(u.Roles, rootName)
	}
	return u
}

func (s *authStore) role(ctx context.Context, method, name string) (role, error) {
	if name == rootName {
		return everything(rootName), nil
	}
	var r role
	err := s.load(ctx, method, "roles/"+name, &r)
	if refused(err, v2error.EcodeKeyNotFound) {
		return r, authError(http.StatusNotFound, "Role %s does not exist.", name)
	}
	return r, err
}

// bcryptMax is how many bytes of a password bcrypt looks at. It refuses longer
// ones today; when etcd 3.4 was built it did not.
const bcryptMax = 72

func hashPassword(password string) (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(password[:min(len(password), bcryptMax)]), bcrypt.DefaultCost)
	return string(hash), err
}

func (s *authStore) createUser(ctx context.Context, u user) (user, error) {
	u = u.withRoot()
	if u.Password == "" {
		return u, authError(http.StatusBadRequest, "Cannot create user %s with an empty password", u.User)
	}
	hash, err := hashPassword(u.Password)
	if err != nil {
		return u, err
	}
	u.Password = hash
	err = s.create(ctx, "users/"+u.User, u)
	if refused(err, v2error.EcodeNodeExist) {
		return u, authError(http.StatusConflict, "User %s already exists.", u.User)
	}
	return u, err
}

// putUser creates a user, or gives one that exists another password.
func (s *authStore) putUser(ctx context.Context, u user) (out user, created bool, err error) {
	if _, err := s.user(ctx, through, u.User); err == nil {
		out, err = s.updateUser(ctx, u)
		return out, false, err
	}
	out, err = s.createUser(ctx, u)
	return out, true, err
}

func (s *authStore) updateUser(ctx context.Context, change user) (user, error) {
	old, err := s.user(ctx, through, change.User)
	if err != nil {
		return old, err
	}
	changed, err := old.merge(change)
	if err != nil {
		return old, err
	}
	if reflect.DeepEqual(old, changed) {
		return old, authError(http.StatusBadRequest, "User not updated. Use grant/revoke/password to update the user.")
	}
	return changed, s.update(ctx, "users/"+changed.User, changed)
}

// merge grants and revokes roles and sets the password.
func (u user) merge(change user) (user, error) {
	out := user{User: u.User, Password: u.Password}
	if change.Password != "" {
		hash, err := hashPassword(change.Password)
		if err != nil {
			return out, err
		}
		out.Password = hash
	}
	roles := slices.Clone(u.Roles)
	for _, name := range change.Grant {
		if slices.Contains(roles, name) {
			return out, authError(http.StatusConflict, "Granting duplicate role %s for user %s", name, change.User)
		}
		roles = append(roles, name)
	}
	for _, name := range change.Revoke {
		if !slices.Contains(roles, name) {
			return out, authError(http.StatusConflict, "Revoking ungranted role %s for user %s", name, change.User)
		}
		roles = slices.DeleteFunc(roles, func(held string) bool { return held == name })
	}
	out.Roles = sortedSet(roles)
	return out, nil
}

// sortedSet is never nil: clients see [].
func sortedSet(names []string) []string {
	out := append([]string{}, names...)
	slices.Sort(out)
	return slices.Compact(out)
}

func (s *authStore) deleteUser(ctx context.Context, name string) error {
	if name == rootName && s.enabled(ctx) {
		return authError(http.StatusForbidden, "Cannot delete root user while auth is enabled.")
	}
	err := s.remove(ctx, "users/"+name)
	if refused(err, v2error.EcodeKeyNotFound) {
		return authError(http.StatusNotFound, "User %s does not exist", name)
	}
	return err
}

func notRoot(name string) error {
	if name == rootName {
		return authError(http.StatusForbidden, "Cannot modify role %s: is root role.", name)
	}
	return nil
}

func (s *authStore) createRole(ctx context.Context, r role) error {
	if err := notRoot(r.Role); err != nil {
		return err
	}
	err := s.create(ctx, "roles/"+r.Role, r)
	if refused(err, v2error.EcodeNodeExist) {
		return authError(http.StatusConflict, "Role %s already exists.", r.Role)
	}
	return err
}

func (s *authStore) updateRole(ctx context.Context, change role) (role, error) {
	if err := notRoot(change.Role); err != nil {
		return role{}, err
	}
	old, err := s.role(ctx, through, change.Role)
	if err != nil {
		return old, err
	}
	changed, err := old.merge(change)
	if err != nil {
		return old, err
	}
	if reflect.DeepEqual(old, changed) {
		return old, authError(http.StatusBadRequest, "Role not updated. Use grant/revoke to update the role.")
	}
	return changed, s.update(ctx, "roles/"+changed.Role, changed)
}

func (r role) merge(change role) (role, error) {
	out := role{Role: r.Role, Permissions: r.Permissions}
	if change.Grant != nil {
		kv, err := out.Permissions.KV.grant(change.Grant.KV)
		if err != nil {
			return out, err
		}
		out.Permissions.KV = kv
	}
	if change.Revoke != nil {
		out.Permissions.KV = out.Permissions.KV.revoke(change.Revoke.KV)
	}
	return out, nil
}

func (p patterns) grant(more patterns) (patterns, error) {
	for _, name := range more.Read {
		if slices.Contains(p.Read, name) {
			return p, authError(http.StatusConflict, "Granting duplicate read permission %s", name)
		}
		p.Read = append(slices.Clone(p.Read), name)
	}
	for _, name := range more.Write {
		if slices.Contains(p.Write, name) {
			return p, authError(http.StatusConflict, "Granting duplicate write permission %s", name)
		}
		p.Write = append(slices.Clone(p.Write), name)
	}
	return patterns{Read: sortedSet(p.Read), Write: sortedSet(p.Write)}, nil
}

// revoke takes patterns away; those that were not granted don't matter.
func (p patterns) revoke(less patterns) patterns {
	without := func(held, gone []string) []string {
		return slices.DeleteFunc(sortedSet(held), func(name string) bool { return slices.Contains(gone, name) })
	}
	return patterns{Read: without(p.Read, less.Read), Write: without(p.Write, less.Write)}
}

func (s *authStore) deleteRole(ctx context.Context, name string) error {
	if err := notRoot(name); err != nil {
		return err
	}
	err := s.remove(ctx, "roles/"+name)
	if refused(err, v2error.EcodeKeyNotFound) {
		return authError(http.StatusNotFound, "Role %s doesn't exist.", name)
	}
	return err
}

// enable wants a root user, and gives guests everything unless there is a role
// that says otherwise.
func (s *authStore) enable(ctx context.Context) error {
	if s.enabled(ctx) {
		return authError(http.StatusConflict, "already enabled")
	}
	if _, err := s.user(ctx, through, rootName); err != nil {
		return authError(http.StatusConflict, "No root user available, please create one")
	}
	if _, err := s.role(ctx, through, guestName); err != nil {
		if err := s.createRole(ctx, everything(guestName)); err != nil {
			return err
		}
	}
	return s.update(ctx, "enabled", true)
}

func (s *authStore) disable(ctx context.Context) error {
	if !s.enabled(ctx) {
		return authError(http.StatusConflict, "already disabled")
	}
	return s.update(ctx, "enabled", false)
}

// access is what a request on keys does.
type access struct {
	key       string
	write     bool
	recursive bool
}

func (r role) allows(a access) bool {
	if r.Role == rootName {
		return true
	}
	held := r.Permissions.KV.Read
	if a.write {
		held = r.Permissions.KV.Write
	}
	return slices.ContainsFunc(held, func(pattern string) bool {
		prefix, open := strings.CutSuffix(pattern, "*")
		if open {
			return strings.HasPrefix(a.key, prefix)
		}
		return !a.recursive && pattern != "" && a.key == pattern
	})
}
