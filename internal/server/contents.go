package server

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// ErrNoV2Data says that a dir holds nothing that the v2 engine serves.
var ErrNoV2Data = errors.New("holds no v2 data")

// CheckV2 says why it would mislead to serve the dir with the v2 engine, or
// nil: all of its data is v3's, or it was written by an etcd without v2 store.
// A dir without any data is served.
func CheckV2(d *datadir.Dir) error {
	hasV3 := d.Log.V3 > 0 || d.Backend != nil && d.Backend.HasKeys
	newer := !d.Facts.Origin.Before(datadir.R36)
	if d.Facts.V2Data != "" || !hasV3 && !newer {
		return nil
	}
	what := "its keys are v3's"
	if newer {
		what = fmt.Sprintf("it was written by etcd %s", d.Facts.Origin)
	}
	return fmt.Errorf("%s: %w: %s%s", d.Root, ErrNoV2Data, what, bootHint(d))
}

// bootHint says which etcd serves the dir instead.
func bootHint(d *datadir.Dir) string {
	var boots []string
	for _, r := range datadir.Tested() {
		if d.Facts.Boots(r) == nil {
			boots = append(boots, r.String())
		}
	}
	if len(boots) == 0 {
		return ""
	}
	return fmt.Sprintf(", which this engine does not serve yet; a copy of it boots in etcd %s with --force-new-cluster",
		strings.Join(boots, ", "))
}

// Contents counts the keys and dirs that the server holds now.
func (s *Server) Contents() (snapcodec.UserData, error) {
	var data snapcodec.UserData
	e, ok := s.engine.(*v2Engine)
	if !ok {
		return data, errors.New("count keys: not the v2 engine")
	}
	tree, err := e.cloneStore().SaveNoCopy()
	if err != nil {
		return data, fmt.Errorf("count keys: %w", err)
	}
	_, err = snapcodec.WalkStore(bytes.NewReader(tree), func(n *snapcodec.Node) error {
		data.Add(n)
		return nil
	})
	return data, err
}
