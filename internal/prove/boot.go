package prove

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/internal/server"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// bootName is the check that the others of its level build upon.
const bootName = "boot a copy"

func (s *subject) checkBoot(ctx context.Context, r *Report) {
	if err := s.bootable(r); err != nil {
		r.check(Boot, bootName, func(*finding) error { return err })
		return
	}
	if server.CheckV2(s.dir) == nil {
		s.checkV2Boot(ctx, r)
	}
	if hasV3(s.dir) {
		s.checkV3Boot(ctx, r)
	}
}

// checkV2Boot boots a copy in the built-in server.
func (s *subject) checkV2Boot(ctx context.Context, r *Report) {
	tmp, err := atomicfile.NewTempDir("", "verify")
	if err != nil {
		r.check(Boot, bootName, func(*finding) error { return err })
		return
	}
	b := &booted{files: s.files, dir: filepath.Join(tmp.Path, "data")}
	b.checkAll(ctx, r)
	r.check(Boot, "clean up", func(f *finding) error {
		f.detail = "the copy is stopped and removed"
		return errors.Join(b.close(), tmp.Remove())
	})
}

// bootable says why nothing is booted.
func (s *subject) bootable(r *Report) error {
	if s.dir == nil {
		return errors.New("not tried: log, snapshot and backend make no state to boot")
	}
	if r.Result == Damaged {
		return errors.New("not tried: there is damage")
	}
	return nil
}

// booted is a copy of what is verified, served to this process alone.
type booted struct {
	files  datadir.Files
	dir    string
	want   *expectation
	server *server.Server
	served chan error
	client *client
}

func (b *booted) checkAll(ctx context.Context, r *Report) {
	r.check(Boot, "replay the log", func(f *finding) error { return b.replay(ctx, f) })
	r.check(Boot, bootName, func(f *finding) error { return b.boot(ctx, f) })
	if !r.passed(bootName) || b.want == nil {
		return
	}
	r.check(Boot, "indexes", b.indexes)
	r.check(Boot, "members", func(f *finding) error { return b.members(ctx, f) })
	r.check(Boot, "keys", func(f *finding) error { return b.keys(ctx, f) })
	r.check(Boot, "users and roles", func(f *finding) error { return b.auth(ctx, f) })
	r.check(Boot, "write and read", func(f *finding) error { return b.write(ctx, f) })
}

// replay makes the copy and computes what must be in it.
func (b *booted) replay(ctx context.Context, f *finding) error {
	if err := clone(ctx, b.files, b.dir); err != nil {
		return err
	}
	dir, err := datadir.Inspect(ctx, b.dir, datadir.Options{})
	if err != nil {
		return err
	}
	want, err := expect(ctx, dir)
	if err = errors.Join(err, dir.Close()); err != nil {
		return err
	}
	b.want = want
	f.detail = fmt.Sprintf("up to entry %d makes v2 index %d", want.applied, want.tree.index)
	return nil
}

// never is longer than any verification: keys whose time is over must still be
// there when they are compared.
const never = 24 * 365 * time.Hour

func (b *booted) boot(ctx context.Context, f *finding) error {
	keys, err := newCredentials()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	options := server.Options{TLS: keys.server, SyncInterval: never}
	if b.server, err = server.Open(ctx, b.dir, options); err != nil {
		return errors.Join(asDamage(err), listener.Close())
	}
	b.served = make(chan error, 1)
	go func() { b.served <- b.server.Serve(listener) }()
	b.client = newClient("https://"+listener.Addr().String(), keys.client)
	if err := b.client.do(ctx, "GET", "/health", nil, nil, new(any)); err != nil {
		return err
	}
	f.detail = b.describe()
	return nil
}

func (b *booted) describe() string {
	found := b.server.Status().Boot
	text := "the v2 data, in the built-in server"
	if n := len(found.Removed); n > 0 {
		text += fmt.Sprintf("; taken over from %s", count(n, "other member"))
	}
	if found.Dropped > 0 {
		text += fmt.Sprintf("; entries not known to be committed are dropped: %d", found.Dropped)
	}
	return text
}

func (b *booted) indexes(f *finding) error {
	found := b.server.Status().Boot
	f.detail = fmt.Sprintf("raft index %d, v2 index %d", found.Applied, found.StoreIndex)
	if found.Applied != b.want.applied {
		f.problem(fmt.Errorf("raft index %d, want %d", found.Applied, b.want.applied))
	}
	if found.StoreIndex != b.want.tree.index {
		f.problem(fmt.Errorf("v2 index %d, want %d", found.StoreIndex, b.want.tree.index))
	}
	return nil
}

// members wants the one that runs to be the only one, and in the list: a node id
// that is new to the dir is refused there if a member holds etcd's default peer
// URL, and etcd 3.4 and 3.5 then panic for want of a voter.
func (b *booted) members(ctx context.Context, f *finding) error {
	ids, err := b.client.members(ctx)
	if err != nil {
		return err
	}
	self := snapcodec.FormatID(b.server.Status().MemberID)
	f.detail = count(len(ids), "member")
	if !slices.Equal(ids, []string{self}) {
		f.problem(fmt.Errorf("members are %q, want %q alone", ids, self))
	}
	return nil
}

// keys compares the tree as a client reads it. Hidden nodes are not listed:
// each is asked for by name.
func (b *booted) keys(ctx context.Context, f *finding) error {
	var want, got listing
	root := b.want.tree.get(keysDir)
	hidden := want.addTree("", root)
	all, err := b.client.get(ctx, "/", url.Values{"recursive": {"true"}})
	if err != nil {
		return err
	}
	got.addAPI(all)
	for len(hidden) > 0 {
		key := hidden[0]
		n := b.want.tree.get(keysDir + key)
		want.addNode(key, n)
		hidden = append(hidden[1:], want.addTree(key, n)...)
		shown, err := b.client.get(ctx, key, url.Values{"recursive": {"true"}})
		if err != nil {
			return err
		}
		got.addAPINode(shown)
		got.addAPI(shown)
	}
	f.detail = fmt.Sprintf("%s, %s, digest %.16s", count(got.keys, "key"), count(got.dirs, "dir"), got.digest())
	if got.digest() != want.digest() {
		f.problem(fmt.Errorf("%d keys and %d dirs, want %d and %d; the first difference: %s",
			got.keys, got.dirs, want.keys, want.dirs, got.difference(&want)))
	}
	return nil
}

// auth compares the names of users and roles. The role root is there without
// being stored, and guest as soon as auth is on.
func (b *booted) auth(ctx context.Context, f *finding) error {
	builtIn := map[string][]string{"user": nil, "role": {"guest", "root"}}
	var told []string
	for _, kind := range []string{"user", "role"} {
		got, err := b.client.names(ctx, kind)
		if err != nil {
			return err
		}
		got = without(got, builtIn[kind])
		want := without(b.want.names(kind), builtIn[kind])
		if !slices.Equal(got, want) {
			f.problem(fmt.Errorf("%ss %q, want %q", kind, got, want))
		}
		told = append(told, count(len(got), kind))
	}
	f.detail = strings.Join(told, ", ")
	return nil
}

// names are the users or roles that are stored.
func (x *expectation) names(kind string) []string {
	var names []string
	if dir := x.tree.get(authDir + "/" + kind + "s"); dir != nil {
		for name := range dir.children {
			names = append(names, name)
		}
	}
	return names
}

func without(names, but []string) []string {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(but, name) })
	slices.Sort(names)
	return names
}

// write sets a key of a name that is not taken, and reads it through the log.
func (b *booted) write(ctx context.Context, f *finding) error {
	key := "/_lifeboat-verify"
	for b.want.tree.get(keysDir+key) != nil {
		key += "-"
	}
	value := time.Now().UTC().Format(time.RFC3339Nano)
	put, err := b.client.put(ctx, key, value)
	if err != nil {
		return err
	}
	got, err := b.client.get(ctx, key, url.Values{"quorum": {"true"}})
	if err != nil {
		return err
	}
	if got.Value != value || got.CreatedIndex != put.CreatedIndex || put.CreatedIndex <= b.want.tree.index {
		return damagef("%s: wrote %q at index %d, read %q of index %d", key, value, put.CreatedIndex, got.Value, got.CreatedIndex)
	}
	f.detail = fmt.Sprintf("a quorum read shows what was written at v2 index %d", put.CreatedIndex)
	return nil
}

func (b *booted) close() error {
	if b.client != nil {
		b.client.close()
	}
	if b.server == nil {
		return nil
	}
	err := b.server.Close(context.Background())
	if b.served != nil {
		err = errors.Join(err, <-b.served)
	}
	return err
}
