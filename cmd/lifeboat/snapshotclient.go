package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/term"
)

// clientFlags are etcdctl's, for reaching a v3 server.
type clientFlags struct {
	endpoints        []string
	dialTimeout      time.Duration
	commandTimeout   time.Duration
	keepaliveTime    time.Duration
	keepaliveTimeout time.Duration
	secure           clientv3.SecureConfig
	user, password   string
}

func (c *clientFlags) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringSliceVar(&c.endpoints, "endpoints", []string{"127.0.0.1:2379"}, "client URLs of the members, comma-separated")
	f.StringVar(&c.secure.Cacert, "cacert", "", "file with the CA that the servers' certificates are checked against")
	f.StringVar(&c.secure.Cert, "cert", "", "file with the client's certificate")
	f.StringVar(&c.secure.Key, "key", "", "file with its key")
	f.BoolVar(&c.secure.InsecureTransport, "insecure-transport", true, "without TLS, unless a certificate or https says otherwise")
	f.BoolVar(&c.secure.InsecureSkipVerify, "insecure-skip-tls-verify", false, "take any certificate of a server")
	f.StringVar(&c.user, "user", "", "name, or name:password; asks for the password if there is none")
	f.StringVar(&c.password, "password", "", "the user's password")
	f.DurationVar(&c.dialTimeout, "dial-timeout", 2*time.Second, "how long an endpoint may take to answer")
	f.DurationVar(&c.commandTimeout, "command-timeout", 0, "limit for the whole command (default: none)")
	f.DurationVar(&c.keepaliveTime, "keepalive-time", 2*time.Second, "how often a silent connection is probed")
	f.DurationVar(&c.keepaliveTimeout, "keepalive-timeout", 6*time.Second, "how long a probe may take")
}

// complete takes what the command line leaves open from ETCDCTL_* variables,
// as etcdctl does.
func (c *clientFlags) complete(cmd *cobra.Command, e *env) error {
	var problem error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := "ETCDCTL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := e.Getenv(name)
		if value == "" || f.Changed || f.Name == "help" {
			return
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			problem = errors.Join(problem, fmt.Errorf("%s: %w", name, err))
		}
	})
	switch {
	case problem != nil:
		return problem
	case len(c.endpoints) == 0:
		return errors.New("--endpoints is empty")
	case (c.secure.Cert == "") != (c.secure.Key == ""):
		return errors.New("--cert and --key go together")
	case c.password != "" && c.user == "":
		return errors.New("--password needs --user")
	case c.dialTimeout <= 0:
		return errors.New("--dial-timeout has to be above 0")
	}
	return nil
}

// limit is the command's context with the time limit, if one was given.
func (c *clientFlags) limit(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	if c.commandTimeout <= 0 {
		return context.WithCancel(cmd.Context())
	}
	return context.WithTimeout(cmd.Context(), c.commandTimeout)
}

func (c *clientFlags) config(e *env) (clientv3.Config, error) {
	auth, err := c.auth(e)
	if err != nil {
		return clientv3.Config{}, err
	}
	cfg, err := clientv3.NewClientConfig(&clientv3.ConfigSpec{
		Endpoints: c.endpoints, DialTimeout: c.dialTimeout,
		KeepAliveTime: c.keepaliveTime, KeepAliveTimeout: c.keepaliveTimeout,
		Secure: &c.secure, Auth: auth,
	}, zap.NewNop())
	if err != nil {
		return clientv3.Config{}, fmt.Errorf("TLS: %w", err)
	}
	cfg.Logger = zap.NewNop()
	return *cfg, nil
}

// auth is user and password, nil without a user.
func (c *clientFlags) auth(e *env) (*clientv3.AuthConfig, error) {
	if c.user == "" {
		return nil, nil
	}
	if c.password != "" {
		return &clientv3.AuthConfig{Username: c.user, Password: c.password}, nil
	}
	name, password, given := strings.Cut(c.user, ":")
	if given {
		return &clientv3.AuthConfig{Username: name, Password: password}, nil
	}
	password, err := askPassword(e, name)
	return &clientv3.AuthConfig{Username: name, Password: password}, err
}

func askPassword(e *env, user string) (string, error) {
	f, ok := e.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return "", fmt.Errorf("user %s has no password (--password, or ETCDCTL_PASSWORD), and there is no terminal to ask for it", user)
	}
	fmt.Fprintf(e.Stderr, "Password of %s: ", user)
	password, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(e.Stderr)
	return string(password), err
}

// connectionHints say what helps against what TLS and gRPC say; they have no
// errors to tell them by, only words.
var connectionHints = []struct{ words, hint string }{
	{"certificate signed by unknown authority", "Give the servers' authority with --cacert"},
	{"certificate required", "The server wants a client certificate: --cert and --key"},
	{"error reading server preface: EOF", "If the server speaks TLS: https://… in --endpoints"},
	{"handshake failed: EOF", "If the server speaks no TLS: http://… in --endpoints"},
	{"does not look like a TLS handshake", "If the server speaks no TLS: http://… in --endpoints"},
}

// connectionHint adds what may help where no connection came about.
func connectionHint(err error) error {
	for _, h := range connectionHints {
		if strings.Contains(err.Error(), h.words) {
			return fmt.Errorf("%w\n%s", err, h.hint)
		}
	}
	return err
}
