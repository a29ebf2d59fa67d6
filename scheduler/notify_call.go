package scheduler

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	callTries = 3
	// callPause is the time before the second try; it doubles for each further
	// one, and a server may ask for up to maxPause.
	callPause = time.Second
	maxPause  = 30 * time.Second
	// maxReply is how much of a reply is read, in bytes.
	maxReply = 512
	// maxRedirects is how many redirects are followed, on the same host.
	maxRedirects = 3
)

// caller makes HTTP calls whose URL and headers are secret.
type caller struct {
	client  *http.Client
	secrets []string // to blank in replies
}

// newCaller makes a caller that trusts the system's authorities and those of a
// file, if one is named. The timeout is that of one try.
func newCaller(caFile string, timeout time.Duration) (*caller, error) {
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if caFile != "" {
		pool, err := authorities(caFile)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return &caller{client: &http.Client{Transport: t, Timeout: timeout, CheckRedirect: sameHost}}, nil
}

// close ends idle connections, and the goroutines that belong to them.
func (c *caller) close() { c.client.CloseIdleConnections() }

// authorities are the system's and those of a file.
func authorities(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("authorities: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a machine may have none
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("authorities: %s holds no certificate", file)
	}
	return pool, nil
}

// errRedirect stops redirects that would carry secrets elsewhere, or lose the
// body.
var errRedirect = errors.New("redirect to elsewhere, which is not followed")

// sameHost follows redirects on the same scheme, host and port, with the same
// method.
func sameHost(next *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case next.URL.Scheme != first.URL.Scheme || next.URL.Host != first.URL.Host:
		return errRedirect
	case next.Method != first.Method || len(via) > maxRedirects:
		return errRedirect
	}
	return nil
}

// call calls a URL up to three times, until the answer is 2xx or such that
// trying again is in vain.
func (c *caller) call(ctx context.Context, method, url string, header http.Header, body []byte) error {
	pause := callPause
	for try := 1; ; try++ {
		err := c.try(ctx, method, url, header, body)
		var f *callError
		if err == nil || errors.As(err, &f) && !f.again {
			return err
		}
		if try == callTries {
			return fmt.Errorf("%d tries: %w", try, err)
		}
		if f != nil {
			pause = max(pause, f.after)
		}
		if !delay(ctx, min(pause, maxPause)) {
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
		pause *= 2
	}
}

// delay waits, and tells whether it could to the end. No time takes no timer: in a
// bubble of synctest, timers that are due at once on two goroutines crash the race
// detector (golang/go 78156).
func delay(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// callError is an answer that is not 2xx, or a call that is in vain.
type callError struct {
	text  string
	again bool          // trying again may help
	after time.Duration // that the server asks to wait
}

func (e *callError) Error() string { return e.text }

func (c *caller) try(ctx context.Context, method, address string, header http.Header, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil || req.URL.Host == "" {
		return &callError{text: "the URL is none that can be called"}
	}
	if header != nil {
		req.Header = header.Clone()
	}
	req.Header.Set("User-Agent", "lifeboat")
	resp, err := c.client.Do(req)
	if err != nil {
		return c.withoutURL(err)
	}
	defer resp.Body.Close()
	reply := c.readReply(resp.Body)
	if resp.StatusCode/100 == 2 {
		return nil
	}
	return refused(resp, reply)
}

// withoutURL takes the URL out of an error of [http.Client.Do].
func (c *caller) withoutURL(err error) error {
	if errors.Is(err, errRedirect) {
		return &callError{text: errRedirect.Error()}
	}
	var u *url.Error
	if !errors.As(err, &u) {
		return err
	}
	if u.Timeout() {
		return errors.New("no answer in time")
	}
	text := u.Err.Error()
	if blank := blankMarked(markSecrets([]byte(text), c.secrets)); blank != text {
		return errors.New(blank)
	}
	return u.Err
}

func refused(resp *http.Response, reply string) error {
	text := "the server answers " + strconv.Itoa(resp.StatusCode) + " " + http.StatusText(resp.StatusCode)
	if reply != "" {
		text += fmt.Sprintf(": %q", reply)
	}
	code := resp.StatusCode
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	return &callError{
		text:  text,
		again: code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout,
		after: time.Duration(min(max(seconds, 0), int(maxPause/time.Second))) * time.Second,
	}
}

// readReply reads the begin of a reply, without secrets. It reads on for the
// length of one, so that none is cut in two.
func (c *caller) readReply(body io.Reader) string {
	longest := 0
	for _, s := range c.secrets {
		longest = max(longest, len(s))
	}
	reply, _ := io.ReadAll(io.LimitReader(body, int64(maxReply+longest))) // what came is enough
	text := markSecrets(reply, c.secrets)
	return strings.TrimSpace(blankMarked(text[:min(maxReply, len(text))]))
}

// minSecretPart is how long a part of a URL has to be, in bytes, to be taken for
// a secret of its own.
const minSecretPart = 6

func isSeparator(r rune) bool { return strings.ContainsRune("/?&=", r) }

// keepSecret keeps a URL out of errors, and its parts, which servers repeat.
func (c *caller) keepSecret(address string) {
	c.secrets = append(c.secrets, address)
	u, err := url.Parse(address)
	if err != nil {
		return
	}
	for _, part := range append(strings.FieldsFunc(u.RequestURI(), isSeparator), strings.Split(u.Path, "/")...) {
		if len(part) >= minSecretPart {
			c.secrets = append(c.secrets, part)
		}
	}
}
