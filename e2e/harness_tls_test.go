//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates for the loopback, all for the one key that it has.
type authority struct {
	t         testing.TB
	dir       string
	ca, key   string // files
	parent    *x509.Certificate
	signature *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	dir := t.TempDir()
	a := &authority{t: t, dir: dir, ca: filepath.Join(dir, "ca.crt"), key: filepath.Join(dir, "tls.key")}
	var err error
	if a.signature, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(a.signature)
	if err != nil {
		t.Fatal(err)
	}
	a.write(a.key, "PRIVATE KEY", der)
	a.parent = &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority of a test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.sign(a.ca, a.parent)
	return a
}

// issue writes a certificate, good for both sides until then, in place of the
// last of that name. It returns the file.
func (a *authority) issue(name string, until time.Time) string {
	a.t.Helper()
	file := filepath.Join(a.dir, name+".crt")
	a.sign(file, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotAfter: until,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	return file
}

func (a *authority) sign(file string, template *x509.Certificate) {
	a.t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore = time.Now().Add(-24 * time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, a.parent, a.signature.Public(), a.signature)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(file, "CERTIFICATE", der)
}

func (a *authority) write(file, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}
