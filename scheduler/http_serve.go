package scheduler

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

const (
	// goodbye is how long requests may take to end when the server is stopped.
	goodbye = 5 * time.Second
	// lookAtCertificate is how long a certificate is used before its files are
	// looked at again.
	lookAtCertificate = time.Second
)

// Serve serves health, metrics and the API until the context ends. When it
// returns, its address is free again. If HTTP is off it returns at once.
func Serve(ctx context.Context, cfg HTTPConfig, c Controller, log *slog.Logger) error {
	if cfg.Listen == Off {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", string(cfg.Listen))
	if err != nil {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return serve(ctx, listener, cfg, c, log)
}

// serve serves on a listener, which it closes.
func serve(ctx context.Context, listener net.Listener, cfg HTTPConfig, c Controller, log *slog.Logger) error {
	scheme := "http"
	if cfg.TLS != (ServerTLS{}) {
		cert, err := newCertificate(cfg.TLS, log)
		if err != nil {
			listener.Close()
			return fmt.Errorf("serve HTTP: %w", err)
		}
		scheme = "https"
		listener = tls.NewListener(listener, &tls.Config{
			MinVersion: tls.VersionTLS12, GetCertificate: cert.get, NextProtos: []string{"http/1.1"},
		})
	}
	srv := &http.Server{
		Handler:           newHandler(cfg, c, log),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	log.Info("serving HTTP", "url", scheme+"://"+listener.Addr().String())
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	err := shutdown(srv)
	<-ended
	return err
}

// shutdown lets requests end for a moment, then cuts them off.
func shutdown(srv *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	err := srv.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	if err != nil {
		return fmt.Errorf("stop serving HTTP: %w", err)
	}
	return nil
}

// certificate is the server's certificate, read anew when its files change.
type certificate struct {
	files ServerTLS
	log   *slog.Logger

	mu     sync.Mutex
	pair   *tls.Certificate
	stamps [2]fileStamp
	looked time.Time
}

// fileStamp tells whether a file was changed.
type fileStamp struct {
	modified time.Time
	size     int64
}

func newCertificate(files ServerTLS, log *slog.Logger) (*certificate, error) {
	c := &certificate{files: files, log: log, looked: time.Now()}
	c.stamps = c.stamp()
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", files.Cert, err)
	}
	c.pair = &pair
	return c, nil
}

func (c *certificate) stamp() [2]fileStamp {
	var stamps [2]fileStamp
	for i, name := range []string{c.files.Cert, c.files.Key} {
		if info, err := os.Stat(name); err == nil {
			stamps[i] = fileStamp{info.ModTime(), info.Size()}
		}
	}
	return stamps
}

// get is the certificate for a connection. When its files have changed and are
// wrong, as they are between the change of the one and of the other, the older
// one stays.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked).Abs() >= lookAtCertificate {
		c.looked = now
		c.reload()
	}
	return c.pair, nil
}

func (c *certificate) reload() {
	stamps := c.stamp()
	if stamps == c.stamps {
		return
	}
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		c.log.Error("new certificate of the HTTP server can't be used; the older one stays", "file", c.files.Cert, "error", err)
		return
	}
	c.pair, c.stamps = &pair, stamps
	c.log.Info("new certificate of the HTTP server", "file", c.files.Cert)
}
