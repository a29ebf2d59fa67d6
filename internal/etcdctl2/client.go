package etcdctl2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	client "go.etcd.io/etcd/client/v2"
)

const (
	defaultEndpoints    = "http://127.0.0.1:2379,http://127.0.0.1:4001"
	defaultTimeout      = 2 * time.Second // 1 s in etcdctl 2.3
	defaultTotalTimeout = 5 * time.Second
	longestDial         = 30 * time.Second
)

// globalFlags are the flags that every command takes. Those left empty come
// from the environment.
type globalFlags struct {
	debug             bool
	noSync            bool
	output            string
	discoverySRV      string
	insecureDiscovery bool
	endpoints         string
	endpoint          string
	peers             string
	certFile          string
	keyFile           string
	caFile            string
	username          string
	timeout           time.Duration // of one request, until its header is there
	totalTimeout      time.Duration // of a whole command but watch; 0: it has no time at all
}

func (g *globalFlags) register(f *pflag.FlagSet) {
	f.BoolVar(&g.debug, "debug", false, "output cURL commands which can be used to reproduce the request")
	f.BoolVar(&g.noSync, "no-sync", false, "don't synchronize cluster information before sending request")
	f.StringVarP(&g.output, "output", "o", formatSimple, "output response in the given format (simple, extended or json)")
	f.StringVarP(&g.discoverySRV, "discovery-srv", "D", "", "domain name to query for SRV records describing cluster endpoints")
	f.BoolVar(&g.insecureDiscovery, "insecure-discovery", false, "accept insecure SRV records describing cluster endpoints")
	f.StringVar(&g.endpoints, "endpoints", "", "a comma-delimited list of machine addresses in the cluster (default \""+defaultEndpoints+"\")")
	f.StringVar(&g.endpoint, "endpoint", "", "as --endpoints")
	f.StringVarP(&g.peers, "peers", "C", "", "as --endpoints")
	f.StringVar(&g.peers, "peer", "", "as --endpoints")
	f.StringVar(&g.certFile, "cert-file", "", "identify HTTPS client using this SSL certificate file")
	f.StringVar(&g.keyFile, "key-file", "", "identify HTTPS client using this SSL key file")
	f.StringVar(&g.caFile, "ca-file", "", "verify certificates of HTTPS-enabled servers using this CA bundle")
	f.StringVarP(&g.username, "username", "u", "", "provide username[:password] and prompt if password is not supplied")
	f.DurationVar(&g.timeout, "timeout", defaultTimeout, "connection timeout per request")
	f.DurationVar(&g.totalTimeout, "total-timeout", defaultTotalTimeout, "timeout for the command execution (except watch)")
	for _, old := range []string{"endpoint", "peers", "peer"} {
		f.Lookup(old).Hidden = true
	}
}

// firstOf returns the first value that is not empty.
func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// endpoints returns the URLs to ask: those that DNS tells, else those given.
func (s *session) endpoints() ([]string, error) {
	eps, err := s.discovered()
	if err != nil {
		return nil, err
	}
	if len(eps) == 0 {
		eps = strings.Split(s.namedEndpoints(), ",")
	}
	for i, ep := range eps {
		if eps[i], err = withScheme(ep); err != nil {
			return nil, err
		}
	}
	return eps, nil
}

func (s *session) namedEndpoints() string {
	g := &s.global
	return firstOf(
		g.endpoints, s.Getenv("ETCDCTL_ENDPOINTS"),
		g.endpoint, s.Getenv("ETCDCTL_ENDPOINT"),
		g.peers, s.Getenv("ETCDCTL_PEERS"),
		defaultEndpoints)
}

// withScheme makes a URL of a plain host:port, which etcdctl refuses.
func withScheme(endpoint string) (string, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "http://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

func (s *session) discoveryDomain() string {
	return firstOf(s.global.discoverySRV, s.Getenv("ETCDCTL_DISCOVERY_SRV"))
}

func (s *session) insecureDiscovery() bool {
	return s.global.insecureDiscovery || s.Getenv("ETCDCTL_INSECURE_DISCOVERY") != ""
}

// discovered asks DNS for the endpoints of the discovery domain, if any is
// set, and leaves out those without TLS unless told to take them.
func (s *session) discovered() ([]string, error) {
	domain := s.discoveryDomain()
	if domain == "" {
		return nil, nil
	}
	found, err := client.NewSRVDiscover().Discover(domain, s.Getenv("ETCDCTL_DISCOVERY_SRV_NAME"))
	if err != nil || s.insecureDiscovery() {
		return found, err
	}
	var secure []string
	for _, ep := range found {
		if strings.HasPrefix(ep, "http://") {
			fmt.Fprintf(s.Stderr, "ignoring discovered insecure endpoint %q\n", ep)
			continue
		}
		secure = append(secure, ep)
	}
	return secure, nil
}

func (s *session) transport() (*http.Transport, error) {
	info := transport.TLSInfo{
		TrustedCAFile: firstOf(s.global.caFile, s.Getenv("ETCDCTL_CA_FILE")),
		CertFile:      firstOf(s.global.certFile, s.Getenv("ETCDCTL_CERT_FILE")),
		KeyFile:       firstOf(s.global.keyFile, s.Getenv("ETCDCTL_KEY_FILE")),
	}
	if !s.insecureDiscovery() {
		info.ServerName = s.discoveryDomain()
	}
	dial := longestDial
	if total := s.global.totalTimeout; total != 0 && total < dial {
		dial = total
	}
	return transport.NewTransport(info, dial)
}

// connect makes a client of the cluster and asks it for its endpoints, unless
// told not to. Failing endpoints end the command; other trouble shows with
// the request itself.
func (s *session) connect(ctx context.Context) (client.Client, error) {
	c, err := s.newClient(ctx)
	if err != nil {
		return nil, err
	}
	if !s.global.noSync {
		if err := s.sync(ctx, c); err != nil {
			return nil, err
		}
	}
	s.debugf("Cluster-Endpoints: %s\n", strings.Join(c.Endpoints(), ", "))
	return c, nil
}

// connectNoSync makes a client that asks only the endpoints it was given.
func (s *session) connectNoSync(ctx context.Context) (client.Client, error) {
	c, err := s.newClient(ctx)
	if err == nil {
		s.debugf("Cluster-Endpoints: %s\n", strings.Join(c.Endpoints(), ", "))
	}
	return c, err
}

func (s *session) newClient(ctx context.Context) (client.Client, error) {
	eps, err := s.endpoints()
	if err != nil {
		return nil, refused("%v", err)
	}
	tr, err := s.transport()
	if err != nil {
		return nil, refused("%v", err)
	}
	config := client.Config{
		Endpoints:               eps,
		Transport:               tr,
		HeaderTimeoutPerRequest: s.global.timeout,
	}
	if s.global.debug {
		config.Transport = &curlTransport{Transport: tr, w: s.Stderr}
	}
	if user := firstOf(s.global.username, s.Getenv("ETCDCTL_USERNAME")); user != "" {
		config.Username, config.Password, err = s.credentials(ctx, "Password: ", user)
		if err != nil {
			return nil, refused("%v", err)
		}
	}
	c, err := client.New(config)
	if err != nil {
		return nil, refused("%v", err)
	}
	return c, nil
}

// sync lets c learn the endpoints that the cluster's members publish.
func (s *session) sync(ctx context.Context, c client.Client) error {
	given := strings.Join(c.Endpoints(), ",")
	s.debugf("start to sync cluster using endpoints(%s)\n", given)
	ctx, cancel := s.withTotalTimeout(ctx)
	defer cancel()
	err := c.Sync(ctx)
	switch {
	case errors.Is(err, client.ErrNoEndpoints):
		fmt.Fprintf(s.Stderr, "etcd cluster has no published client endpoints.\n"+
			"Try '--no-sync' if you want to access non-published client endpoints(%s).\n", given)
		return failed(exitServerError, err)
	case isConnectionError(err):
		return failed(exitBadConnection, err)
	}
	s.debugf("got endpoints(%s) after sync\n", strings.Join(c.Endpoints(), ","))
	return nil
}

func (s *session) debugf(format string, args ...any) {
	if s.global.debug {
		fmt.Fprintf(s.Stderr, format, args...)
	}
}

func (s *session) withTotalTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.global.totalTimeout)
}

// isConnectionError tells an endpoint out of reach from one that answered
// badly. Of several endpoints, all must be out of reach.
func isConnectionError(err error) bool {
	var (
		cluster *client.ClusterError
		op      *net.OpError
		timeout net.Error
	)
	switch {
	case errors.As(err, &cluster):
		return allConnectionErrors(cluster.Errors)
	case errors.As(err, &op) && (op.Op == "dial" || op.Op == "read"):
		return true
	case errors.As(err, &timeout) && timeout.Timeout():
		return true
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

func allConnectionErrors(errs []error) bool {
	for _, err := range errs {
		if !isConnectionError(err) {
			return false
		}
	}
	return true
}

// curlTransport writes each request as the curl command that would send it.
type curlTransport struct {
	*http.Transport
	w io.Writer
}

// RoundTrip sends req after writing it down.
func (t *curlTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	line := fmt.Sprintf("curl -X %s %s", req.Method, req.URL)
	if req.Body != nil {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, fmt.Errorf("read the request's body: %w", err)
		}
		if err := req.Body.Close(); err != nil {
			return nil, fmt.Errorf("close the request's body: %w", err)
		}
		line += fmt.Sprintf(" -d %q", body)
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(strings.NewReader(string(body)))
	}
	fmt.Fprintf(t.w, "cURL Command: %s\n", line)
	return t.Transport.RoundTrip(req)
}
