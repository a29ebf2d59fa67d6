package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/scheduler"
)

func newTriggerCommand(e *env) *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "trigger JOB --config FILE",
		Short: "Ask the running daemon to run a job now",
		Long: `Trigger asks the daemon that runs with the same configuration file to run a job
now. It returns once the run is queued, and prints the run's id; the daemon's log,
metrics and API tell what becomes of it.`,
		Example: `  lifeboat trigger nightly --config /etc/lifeboat/lifeboat.yaml`,
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if config == "" {
				return withExit(exitUsage, errors.New("--config is needed: it says where the daemon listens"))
			}
			id, err := trigger(cmd.Context(), config, args[0])
			if err != nil {
				return fmt.Errorf("trigger: %w", err)
			}
			_, err = fmt.Fprintf(e.Stdout, "Queued %s as %s\n", args[0], id)
			return err
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "the daemon's configuration file")
	return cmd
}

const triggerTimeout = 30 * time.Second

// trigger asks over the daemon's API, and returns the id of the run.
func trigger(ctx context.Context, path, job string) (string, error) {
	config, err := readConfig(path)
	if err != nil {
		return "", err
	}
	if !slices.Contains(jobNames(config), job) {
		return "", noJob(job, config)
	}
	without := fmt.Sprintf("To run the job without it: lifeboat run --once %s --config %s", shellWord(job), shellWord(path))
	if config.HTTP.Listen == scheduler.Off {
		return "", fmt.Errorf("the daemon's HTTP server is off\n%s", without)
	}
	ctx, cancel := context.WithTimeout(ctx, triggerTimeout)
	defer cancel()
	id, err := askDaemon(ctx, config.HTTP, job)
	if _, unreachable := errors.AsType[*url.Error](err); unreachable {
		err = withExit(exitUnreachable, fmt.Errorf("the daemon does not answer: %w\n%s", err, without))
	}
	return id, err
}

// askDaemon posts the request for a run.
func askDaemon(ctx context.Context, c scheduler.HTTPConfig, job string) (string, error) {
	client, target, err := daemonClient(c)
	if err != nil {
		return "", err
	}
	name, isDrill := strings.CutSuffix(job, drillSuffix)
	target += "/api/v1/jobs/" + url.PathEscape(name)
	if isDrill {
		target += drillSuffix
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target+"/run", nil)
	if err != nil {
		return "", err
	}
	token, err := c.Token.Read()
	if err != nil {
		return "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token.Reveal())
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	return queued(resp)
}

// queued reads the daemon's answer.
func queued(resp *http.Response) (string, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", err
	}
	var answer struct {
		RunID string `json:"run_id"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.RunID == "" {
		return "", fmt.Errorf("the daemon answers %s: %s", resp.Status, answer.Error)
	}
	return answer.RunID, nil
}

// daemonClient reaches the daemon on this machine; its own certificate is the
// one to trust.
func daemonClient(c scheduler.HTTPConfig) (*http.Client, string, error) {
	host, port, err := net.SplitHostPort(string(c.Listen))
	if err != nil {
		return nil, "", err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	address := net.JoinHostPort(host, port)
	if c.TLS.Cert == "" {
		return http.DefaultClient, "http://" + address, nil
	}
	pem, err := os.ReadFile(c.TLS.Cert)
	if err != nil {
		return nil, "", err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	return &http.Client{Transport: transport}, "https://" + address, nil
}
