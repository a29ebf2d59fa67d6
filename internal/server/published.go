package server

import (
	"context"
	"errors"
	"slices"
	"time"
)

// publishedEvery is how often Published looks.
const publishedEvery = 2 * time.Millisecond

// Published waits until Serve has told the cluster that clients find this
// server at url. Until then clients that ask for the members first, as etcdctl
// does, are sent nowhere.
func (s *Server) Published(ctx context.Context, url string) error {
	e, ok := s.engine.(*v2Engine)
	if !ok {
		return errors.New("wait for the client URL: not the v2 engine")
	}
	tick := time.NewTicker(publishedEvery)
	defer tick.Stop()
	for !e.tells(url) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (e *v2Engine) tells(url string) bool {
	for _, m := range e.members() {
		if m.ID == e.id {
			return slices.Contains(m.ClientURLs, url)
		}
	}
	return false
}
