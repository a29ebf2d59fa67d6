package server

import (
	"errors"
	"fmt"
	"path"
	"reflect"
	"strings"

	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
)

// updateStore is store.Update, with directories.
//
// etcd's store through 3.5 lets an update change a directory's time to live.
// Since 3.6 (v2store/store.go, Update) it returns the error of a write to the
// directory that earlier releases ignored, so a log with such updates would not
// replay. The node is made to look like a file meanwhile; the caller must keep
// readers away from the store, and from the event until this returns.
func updateStore(store v2store.Store, key, value string, opts v2store.TTLOptionSet) (*v2store.Event, error) {
	n, isDir := directory(store, key)
	if !isDir || value != "" || key == "/" || key == clusterPrefix || key == keysPrefix {
		return store.Update(key, value, opts)
	}
	children, modified := n.Children.Interface(), n.ModifiedIndex.Uint()
	n.Children.SetZero()
	ev, err := store.Update(key, value, opts)
	n.Children.Set(reflect.ValueOf(children))
	n.ModifiedIndex.SetUint(modified)
	if err != nil {
		return nil, fmt.Errorf("update directory %s: %w", key, err)
	}
	ev.Node.Dir, ev.Node.Value = true, nil
	ev.PrevNode.Dir, ev.PrevNode.Value = true, nil
	return ev, nil
}

// dirNode is a directory inside etcd's store: exported fields of types that
// are not.
type dirNode struct{ Children, ModifiedIndex reflect.Value }

func directory(store v2store.Store, key string) (dirNode, bool) {
	n := reflect.ValueOf(store).Elem().FieldByName("Root")
	for _, name := range strings.Split(path.Clean(path.Join("/", key)), "/") {
		if name == "" {
			continue
		}
		n = n.Elem().FieldByName("Children").MapIndex(reflect.ValueOf(name))
		if !n.IsValid() {
			return dirNode{}, false
		}
	}
	d := dirNode{Children: n.Elem().FieldByName("Children"), ModifiedIndex: n.Elem().FieldByName("ModifiedIndex")}
	return d, !d.Children.IsNil()
}

// checkHistory checks the ring of past events that a snapshot brought along:
// the store indexes it by the numbers in the snapshot.
func checkHistory(store v2store.Store) error {
	hub := reflect.ValueOf(store).Elem().FieldByName("WatcherHub")
	if hub.IsNil() || hub.Elem().FieldByName("EventHistory").IsNil() {
		return errors.New("no event history")
	}
	history, ok := hub.Elem().FieldByName("EventHistory").Interface().(*v2store.EventHistory)
	if !ok {
		return errors.New("event history: unknown type")
	}
	q := history.Queue
	n := len(q.Events)
	if n == 0 || n != q.Capacity || q.Size < 0 || q.Size > n || q.Front < 0 || q.Front >= n || q.Back != (q.Front+q.Size)%n {
		return fmt.Errorf("event history: ring of %d with %d of %d events from %d to %d", n, q.Size, q.Capacity, q.Front, q.Back)
	}
	for i := range q.Size {
		if ev := q.Events[(q.Front+i)%n]; ev == nil || ev.Node == nil {
			return fmt.Errorf("event history: event %d is missing", i)
		}
	}
	return nil
}
