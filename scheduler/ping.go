package scheduler

import (
	"context"
	"net/http"
	"time"
)

// ping calls a URL of a dead man's switch. Each of up to three tries may take
// the timeout. The URL, which is a secret, is in no error: who calls says which it was.
func ping(ctx context.Context, url Secret, timeout time.Duration) error {
	address, err := url.Read()
	if err != nil {
		return err
	}
	c, err := newCaller("", timeout)
	if err != nil {
		return err
	}
	defer c.close()
	c.keepSecret(address.Reveal())
	return c.call(ctx, http.MethodGet, address.Reveal(), nil, nil)
}
