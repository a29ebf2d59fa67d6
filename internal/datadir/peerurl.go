package datadir

import (
	"fmt"
	"slices"
)

// ForcedPeerURL is what --force-new-cluster gives to a node id that is new to
// the dir (etcdserver/raft.go, createConfigChangeEnts, etcd 3.0 to 3.7). It is
// also what a member gets that was never told its own.
const ForcedPeerURL = "http://localhost:2380"

// FreePeerURL is one like it that none of the members has.
func FreePeerURL(members map[uint64][]string) string {
	for port := 2380; ; port++ {
		if url := fmt.Sprintf("http://127.0.0.1:%d", port); !taken(members, url) {
			return url
		}
	}
}

func taken(members map[uint64][]string, url string) bool {
	for _, urls := range members {
		if slices.Contains(urls, url) {
			return true
		}
	}
	return false
}
