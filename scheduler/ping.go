package scheduler

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// ping calls a URL of a dead man's switch. Each of up to three tries may take
// the timeout. The URL, which is a secret, is in no error.
func ping(ctx context.Context, url Secret, timeout time.Duration) error {
	address, err := url.Read()
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	c, err := newCaller("", timeout)
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	defer c.close()
	c.keepSecret(address.Reveal())
	if err := c.call(ctx, http.MethodGet, address.Reveal(), nil, nil); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}
