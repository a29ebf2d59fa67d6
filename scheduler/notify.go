package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// Notification is the JSON that webhooks and commands get. It is a stable
// contract: names stay, new ones may come.
type Notification struct {
	Event Event     `json:"event"`
	Text  string    `json:"text"` // one line for people, which chats show as it is
	Run   RunRecord `json:"run"`
}

// notify tells somebody what became of a run. It may take as long as the
// configured timeout, three times that of a webhook.
func notify(ctx context.Context, n *NotifyConfig, event Event, run RunRecord) error {
	body, err := json.Marshal(Notification{Event: event, Text: headline(event, run), Run: run})
	if err != nil {
		return err
	}
	if n.Webhook != nil {
		return callWebhook(ctx, n.Webhook, body)
	}
	return notifyCommand(ctx, n.Command, event, run, body)
}

// headline is what happened, in one line.
func headline(event Event, run RunRecord) string {
	subject := fmt.Sprintf("lifeboat on %s: %s of job %s, cluster %s", run.Host, run.Kind, run.Job, run.Cluster)
	switch event {
	case Failure:
		reason := strings.Join(strings.Fields(run.Error), " ") // which may have a line for each endpoint
		return fmt.Sprintf("%s has failed (%s): %s", subject, run.Cause, reason)
	case Recovery:
		return subject + " is well again"
	default:
		return subject + " is done"
	}
}

func callWebhook(ctx context.Context, w *WebhookConfig, body []byte) error {
	url, err := w.URL.Read()
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	c, err := newCaller(w.CAFile, w.Timeout)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	defer c.close()
	c.keepSecret(url.Reveal())
	header := http.Header{"Content-Type": {"application/json"}}
	for name, s := range w.Headers {
		value, err := s.Read()
		if err != nil {
			return fmt.Errorf("webhook: header %s: %w", name, err)
		}
		header.Set(name, value.Reveal())
		c.secrets = append(c.secrets, value.Reveal())
	}
	if err := c.call(ctx, http.MethodPost, url.Reveal(), header, body); err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	return nil
}

func notifyCommand(ctx context.Context, c *CommandConfig, event Event, run RunRecord, body []byte) error {
	p := process{argv: c.Run, timeout: c.Timeout, stdin: body}
	told := []string{
		"LIFEBOAT_EVENT=" + string(event), "LIFEBOAT_JOB=" + run.Job,
		"LIFEBOAT_CLUSTER=" + run.Cluster, "LIFEBOAT_RESULT=" + string(run.Result),
	}
	if err := p.environment(told, c.Environment); err != nil {
		return fmt.Errorf("command %s: %w", p.name(), err)
	}
	if err := p.run(ctx); err != nil {
		return fmt.Errorf("command %s: %w", p.name(), err)
	}
	return nil
}
