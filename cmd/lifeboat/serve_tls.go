package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/spf13/pflag"
)

// serveTLS are the files of a server that speaks HTTPS; all empty: it does not.
type serveTLS struct {
	certFile, keyFile, clientCAFile string
}

func (t *serveTLS) addFlags(f *pflag.FlagSet) {
	f.StringVar(&t.certFile, "cert-file", "", "certificate of the server: serve HTTPS")
	f.StringVar(&t.keyFile, "key-file", "", "its private key")
	f.StringVar(&t.clientCAFile, "client-ca-file", "", "authorities whose certificates clients must show; a v2 user may be its common name")
	f.StringVar(&t.clientCAFile, "trusted-ca-file", "", "etcd's name for --client-ca-file")
}

func (t serveTLS) check() error {
	if (t.certFile == "") != (t.keyFile == "") {
		return errors.New("--cert-file and --key-file go together")
	}
	if t.clientCAFile != "" && t.certFile == "" {
		return errors.New("--client-ca-file needs --cert-file and --key-file")
	}
	return nil
}

// config is nil without a certificate.
func (t serveTLS) config() (*tls.Config, error) {
	if t.certFile == "" {
		return nil, nil
	}
	certificate, err := tls.LoadX509KeyPair(t.certFile, t.keyFile)
	if err != nil {
		return nil, fmt.Errorf("--cert-file %s: %w", t.certFile, err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	if t.clientCAFile == "" {
		return c, nil
	}
	authorities, err := os.ReadFile(t.clientCAFile)
	if err != nil {
		return nil, fmt.Errorf("--client-ca-file: %w", err)
	}
	c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !c.ClientCAs.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("--client-ca-file %s: holds no certificate", t.clientCAFile)
	}
	return c, nil
}

// url is where this host finds a server that listens on an address.
func (t serveTLS) url(addr net.Addr) string {
	scheme, at := "http://", addr.String()
	if t.certFile != "" {
		scheme = "https://"
	}
	if host, port, err := net.SplitHostPort(at); err == nil && net.ParseIP(host).IsUnspecified() {
		at = net.JoinHostPort("localhost", port)
	}
	return scheme + at
}
