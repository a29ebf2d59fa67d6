package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// keyTree is what a server of the v2 API holds, hidden keys but for one left out.
type keyTree struct {
	index uint64 // the store's
	nodes []keyNode
}

// keyNode is a key or dir as the API shows it. The time to live is left out:
// it counts down.
type keyNode struct {
	Key           string    `json:"key"`
	Value         string    `json:"value"`
	Dir           bool      `json:"dir"`
	Expiration    string    `json:"expiration"`
	CreatedIndex  uint64    `json:"createdIndex"`
	ModifiedIndex uint64    `json:"modifiedIndex"`
	Nodes         []keyNode `json:"nodes"`
}

// hiddenKey is not listed: it has to be asked for.
const hiddenKey = "/config/_secret"

func readV2Keys(ctx context.Context, url string) (keyTree, error) {
	var t keyTree
	for _, target := range []string{"/?recursive=true&sorted=true", hiddenKey} {
		root, index, err := getKeys(ctx, url+"/v2/keys"+target)
		if err != nil {
			return keyTree{}, err
		}
		t.index = index
		t.add(root)
	}
	return t, nil
}

func getKeys(ctx context.Context, url string) (keyNode, uint64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return keyNode{}, 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return keyNode{}, 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return keyNode{}, 0, fmt.Errorf("%s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return keyNode{}, 0, fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	var answer struct{ Node keyNode }
	if err := json.Unmarshal(body, &answer); err != nil {
		return keyNode{}, 0, fmt.Errorf("%s: %w", url, err)
	}
	index, err := strconv.ParseUint(resp.Header.Get("X-Etcd-Index"), 10, 64)
	if err != nil {
		return keyNode{}, 0, fmt.Errorf("%s: X-Etcd-Index: %w", url, err)
	}
	return answer.Node, index, nil
}

// add flattens the tree; its nameless root is left out.
func (t *keyTree) add(n keyNode) {
	children := n.Nodes
	if n.Nodes = nil; n.Key != "" {
		t.nodes = append(t.nodes, n)
	}
	for _, child := range children {
		t.add(child)
	}
}

// same says where the other tree differs, if it does. Booting a copy takes
// steps of its own: its index may only have grown.
func (t keyTree) same(other keyTree) error {
	held := map[string]keyNode{}
	for _, n := range other.nodes {
		held[n.Key] = n
	}
	for _, n := range t.nodes {
		got, ok := held[n.Key]
		if !ok {
			return fmt.Errorf("%s: is missing", n.Key)
		}
		if fmt.Sprint(got) != fmt.Sprint(n) {
			return fmt.Errorf("%s: is %+v, and was %+v", n.Key, got, n)
		}
		delete(held, n.Key)
	}
	for key := range held {
		return fmt.Errorf("%s: was not there before", key)
	}
	if other.index < t.index {
		return fmt.Errorf("the v2 index is %d, and was %d", other.index, t.index)
	}
	return nil
}
