package prove

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// credentials let one client in, and nobody else who reaches the port: what is
// booted may hold secrets.
type credentials struct{ server, client *tls.Config }

const (
	// rootUser may do everything once v2 auth is on; a certificate's common
	// name is as good as a password.
	rootUser   = "root"
	serverName = "localhost"
	authority  = "lifeboat verify"
	validity   = 24 * time.Hour
)

// newCredentials makes certificates that live as long as the process.
func newCredentials() (credentials, error) {
	ca, err := newCertificate(authority, nil)
	if err != nil {
		return credentials{}, err
	}
	server, err := newCertificate(serverName, &ca)
	if err != nil {
		return credentials{}, err
	}
	client, err := newCertificate(rootUser, &ca)
	if err != nil {
		return credentials{}, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	return credentials{
		server: &tls.Config{
			Certificates: []tls.Certificate{server}, ClientCAs: pool,
			ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
		},
		client: &tls.Config{
			Certificates: []tls.Certificate{client}, RootCAs: pool,
			ServerName: serverName, MinVersion: tls.VersionTLS13,
		},
	}, nil
}

// newCertificate is signed by the authority; by itself if that is nil.
func newCertificate(name string, by *tls.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-validity), NotAfter: time.Now().Add(validity),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := template, key
	if by == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		template.ExtKeyUsage = nil
	} else {
		parentKey, ok := by.PrivateKey.(*ecdsa.PrivateKey)
		if !ok {
			return tls.Certificate{}, fmt.Errorf("certificate of %s: its authority has no key", name)
		}
		parent, signer = by.Leaf, parentKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}
