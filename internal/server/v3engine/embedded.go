package v3engine

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// EmbeddedCommand is the first argument with which this program is started
// again as the built-in etcd: main has to call [RunEmbedded] then.
const EmbeddedCommand = "built-in-etcd"

// engineGuard is set in the environment of each etcd that we start. A program
// that does not know EmbeddedCommand would otherwise start itself for ever.
const engineGuard = "LIFEBOAT_ENGINE"

// RunEmbedded is etcd 3.7 until ctx or stdin ends, or SIGTERM. Its flags are
// etcd's.
func RunEmbedded(ctx context.Context, args []string, stdin io.Reader) error {
	config, err := embeddedConfig(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer etcd.Close()
	parent := make(chan struct{})
	go func() {
		io.Copy(io.Discard, stdin)
		close(parent)
	}()
	select {
	case <-ctx.Done():
		return nil
	case <-parent:
		return nil
	case err := <-etcd.Err():
		return err
	case <-etcd.Server.StopNotify():
		return errors.New("etcd stopped")
	}
}

// embeddedConfig reads the flags that [Server] sets.
func embeddedConfig(args []string) (*embed.Config, error) {
	if os.Getenv(engineGuard) == "" {
		return nil, fmt.Errorf("%s is not for use by hand", EmbeddedCommand)
	}
	c := embed.NewConfig()
	f := flag.NewFlagSet(EmbeddedCommand, flag.ContinueOnError)
	f.StringVar(&c.Name, "name", c.Name, "")
	f.StringVar(&c.Dir, "data-dir", "", "")
	f.StringVar(&c.WalDir, "wal-dir", "", "")
	f.BoolVar(&c.ForceNewCluster, "force-new-cluster", false, "")
	f.Int64Var(&c.QuotaBackendBytes, "quota-backend-bytes", 0, "")
	f.BoolVar(&c.UnsafeNoFsync, "unsafe-no-fsync", false, "")
	f.BoolVar(&c.EnableGRPCGateway, "enable-grpc-gateway", true, "")
	f.StringVar(&c.ClientTLSInfo.CertFile, "cert-file", "", "")
	f.StringVar(&c.ClientTLSInfo.KeyFile, "key-file", "", "")
	f.StringVar(&c.ClientTLSInfo.TrustedCAFile, "trusted-ca-file", "", "")
	f.BoolVar(&c.ClientTLSInfo.ClientCertAuth, "client-cert-auth", false, "")
	f.StringVar(&c.Logger, "logger", c.Logger, "")
	f.StringVar(&c.LogLevel, "log-level", c.LogLevel, "")
	urlFlag(f, "listen-client-urls", &c.ListenClientUrls)
	urlFlag(f, "advertise-client-urls", &c.AdvertiseClientUrls)
	urlFlag(f, "listen-peer-urls", &c.ListenPeerUrls)
	urlFlag(f, "initial-advertise-peer-urls", &c.AdvertisePeerUrls)
	f.StringVar(&c.InitialCluster, "initial-cluster", c.InitialCluster, "")
	f.Func("log-outputs", "", func(s string) error { c.LogOutputs = []string{s}; return nil })
	return c, f.Parse(args)
}

func urlFlag(f *flag.FlagSet, name string, to *[]url.URL) {
	f.Func(name, "", func(s string) error {
		u, err := url.Parse(s)
		if err != nil {
			return err
		}
		*to = []url.URL{*u}
		return nil
	})
}
