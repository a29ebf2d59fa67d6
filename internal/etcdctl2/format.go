package etcdctl2

import (
	"encoding/json"
	"fmt"

	client "go.etcd.io/etcd/client/v2"
)

// The values of --output.
const (
	formatSimple   = "simple"
	formatExtended = "extended"
	formatJSON     = "json"
)

// checkFormat refuses an unknown --output before anything is sent.
func (s *session) checkFormat() error {
	switch s.global.output {
	case formatSimple, formatExtended, formatJSON:
		return nil
	}
	return refused("Unsupported output format: %s", s.global.output)
}

// printResponse prints a key's response in the format asked for.
func (s *session) printResponse(resp *client.Response) error {
	switch s.global.output {
	case formatJSON:
		return s.printJSON(resp)
	case formatExtended:
		s.printExtended(resp)
	default:
		s.printSimple(resp)
	}
	return nil
}

func (s *session) printSimple(resp *client.Response) {
	if resp.Action == "delete" {
		fmt.Fprintln(s.out, "PrevNode.Value:", valueOf(resp.PrevNode))
		return
	}
	fmt.Fprintln(s.out, valueOf(resp.Node))
}

// printExtended prints the node's facts as header lines, then its value.
func (s *session) printExtended(resp *client.Response) {
	fmt.Fprintln(s.out, "Key:", resp.Node.Key)
	fmt.Fprintln(s.out, "Created-Index:", resp.Node.CreatedIndex)
	fmt.Fprintln(s.out, "Modified-Index:", resp.Node.ModifiedIndex)
	if resp.PrevNode != nil {
		fmt.Fprintln(s.out, "PrevNode.Value:", resp.PrevNode.Value)
	}
	fmt.Fprintln(s.out, "TTL:", resp.Node.TTL)
	fmt.Fprintln(s.out, "Index:", resp.Index)
	if resp.Action != "delete" {
		fmt.Fprintf(s.out, "\n%s\n", resp.Node.Value)
	}
}

func (s *session) printJSON(resp *client.Response) error {
	line, err := json.Marshal(resp)
	if err != nil {
		return fmt.Errorf("encode the response: %w", err)
	}
	fmt.Fprintf(s.out, "%s\n", line)
	return nil
}

func valueOf(n *client.Node) string {
	if n == nil {
		return ""
	}
	return n.Value
}
