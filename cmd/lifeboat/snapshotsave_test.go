package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// tlsMember is a server that asks for a certificate and has a snapshot.
type tlsMember struct {
	pb.UnimplementedMaintenanceServer
	snapshot []byte
}

func (m *tlsMember) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{Header: &pb.ResponseHeader{MemberId: 1}, Leader: 1, RaftAppliedIndex: 1}, nil
}

func (m *tlsMember) Snapshot(_ *pb.SnapshotRequest, s grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
	return s.Send(&pb.SnapshotResponse{Blob: m.snapshot})
}

// certificate makes one that is its own CA and good for both sides, and returns
// the files of it and its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return writePEM(t, "CERTIFICATE", der), writePEM(t, "PRIVATE KEY", secret)
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func listenTLS(t *testing.T, m *tlsMember, cert, key string) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	})))
	pb.RegisterMaintenanceServer(s, m)
	done := make(chan struct{})
	go func() {
		s.Serve(l)
		close(done)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return "https://" + l.Addr().String()
}

func TestSaveOverTLS(t *testing.T) {
	cert, key := certificate(t)
	body := bytes.Repeat([]byte{7}, 512)
	sum := sha256.Sum256(body)
	m := &tlsMember{snapshot: append(body, sum[:]...)}
	address := listenTLS(t, m, cert, key)
	for name, c := range map[string]struct {
		flags []string
		env   map[string]string
		code  int
	}{
		"with flags":            {[]string{"--cacert", cert, "--cert", cert, "--key", key}, nil, exitDone},
		"with the environment":  {nil, map[string]string{"ETCDCTL_CACERT": cert, "ETCDCTL_CERT": cert, "ETCDCTL_KEY": key}, exitDone},
		"taking any":            {[]string{"--insecure-skip-tls-verify", "--cert", cert, "--key", key}, nil, exitDone},
		"without a certificate": {[]string{"--cacert", cert}, nil, exitUnreachable},
		"not trusting it":       {[]string{"--cert", cert, "--key", key}, nil, exitUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "s.db")
			args := append([]string{"snapshot", "save", file, "--endpoints", address, "--retries", "0", "--dial-timeout", "1s"}, c.flags...)
			var out discard
			var talk bytes.Buffer
			code := run(context.Background(), args, &env{Stdout: &out, Stderr: &talk, Getenv: func(k string) string { return c.env[k] }})
			if code != c.code {
				t.Fatalf("exit code %d, want %d\n%s", code, c.code, talk.String())
			}
			got, err := os.ReadFile(file)
			if (err == nil) != (code == exitDone) || err == nil && !bytes.Equal(got, m.snapshot) {
				t.Errorf("file: %v, %d bytes", err, len(got))
			}
		})
	}
}
