//go:build e2e

package etcdctl2_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestTLSLikeEtcdctl checks the TLS flags against a server that wants a
// client certificate. Go's words for a refused handshake change over time.
func TestTLSLikeEtcdctl(t *testing.T) {
	files, server := startTLSProxy(t, startEtcdV2(t))
	etcdctl, lifeboat := etcdctlClient(t), lifeboatClient(t)
	whole := []string{"--no-sync", "--ca-file", files.ca, "--cert-file", files.cert, "--key-file", files.key}
	for name, args := range map[string][]string{
		"mutual":         append(whole, "set", "/k", "v"),
		"no client cert": {"--no-sync", "--ca-file", files.ca, "set", "/k", "v"},
		"unknown ca":     {"--no-sync", "--cert-file", files.cert, "--key-file", files.key, "set", "/k", "v"},
		"no key":         {"--no-sync", "--ca-file", files.ca, "--cert-file", files.cert, "set", "/k", "v"},
	} {
		t.Run(name, func(t *testing.T) {
			want, got := etcdctl.run(t, server, "", args...), lifeboat.run(t, server, "", args...)
			if want.code != got.code || want.stdout != got.stdout || (want.stderr == "") != (got.stderr == "") {
				t.Errorf("etcdctl:\n%s\nlifeboat:\n%s", want, got)
			}
		})
	}
	if got := lifeboat.run(t, server, "", append(whole, "get", "/k")...); got.stdout != "v\n" {
		t.Errorf("get through TLS: %s", got)
	}
}

// tlsFiles are a certificate authority and a certificate of it, in PEM.
type tlsFiles struct{ ca, cert, key string }

// startTLSProxy puts a TLS server with client certificates before server.
func startTLSProxy(t *testing.T, server string) (tlsFiles, string) {
	t.Helper()
	files, pair, pool := newCertificates(t)
	target, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(target))
	proxy.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	proxy.Config.ErrorLog = log.New(io.Discard, "", 0)
	proxy.StartTLS()
	t.Cleanup(proxy.Close)
	return files, proxy.URL
}

// newCertificates makes an authority that vouches for itself, on loopback.
func newCertificates(t *testing.T) (tlsFiles, tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "loopback"},
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return certificateFiles(t, der, keyDER)
}

func certificateFiles(t *testing.T, der, keyDER []byte) (tlsFiles, tls.Certificate, *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	files := tlsFiles{ca: filepath.Join(dir, "cert.pem"), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	for file, text := range map[string][]byte{files.cert: cert, files.key: key} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return files, pair, pool
}
