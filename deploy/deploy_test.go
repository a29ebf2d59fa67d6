// Package deploy holds the tests of what is in this folder: files that nothing
// compiles.
package deploy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/etcd-lifeboat/lifeboat/scheduler"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// commandLine checks the arguments of lifeboat against what its commands know,
// and returns the values of the flags.
func commandLine(t *testing.T, args []string) map[string]string {
	t.Helper()
	if len(args) > 1 && args[0] == "config" && args[1] == "check" && len(args) == 3 {
		return map[string]string{"--config": args[2]}
	}
	if len(args) == 0 || args[0] != "run" {
		t.Fatalf("lifeboat %q: want run or config check", args)
	}
	source := string(read(t, "../cmd/lifeboat/run.go"))
	flags := map[string]string{}
	for i := 1; i < len(args); i += 2 {
		name, ok := strings.CutPrefix(args[i], "--")
		if !ok || i+1 == len(args) || !strings.Contains(source, `, "`+name+`", `) {
			t.Fatalf("lifeboat %q: %s is no flag of run that has a value", args, args[i])
		}
		flags[args[i]] = args[i+1]
	}
	return flags
}

// The parts of Kubernetes' objects that the manifests use. A key that is not
// here is an error: it may be mistyped.
type (
	object struct {
		APIVersion string            `yaml:"apiVersion"`
		Kind       string            `yaml:"kind"`
		Metadata   meta              `yaml:"metadata"`
		Data       map[string]string `yaml:"data"`
		Spec       any               `yaml:"spec"`
	}
	meta struct {
		Name      string            `yaml:"name"`
		Namespace string            `yaml:"namespace"`
		Labels    map[string]string `yaml:"labels"`
	}
	workload struct {
		Replicas       int            `yaml:"replicas"`
		Strategy       map[string]any `yaml:"strategy"`
		UpdateStrategy map[string]any `yaml:"updateStrategy"`
		Selector       struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		} `yaml:"selector"`
		Template template `yaml:"template"`
	}
	cronJob struct {
		Schedule                   string `yaml:"schedule"`
		TimeZone                   string `yaml:"timeZone"`
		ConcurrencyPolicy          string `yaml:"concurrencyPolicy"`
		StartingDeadlineSeconds    int    `yaml:"startingDeadlineSeconds"`
		SuccessfulJobsHistoryLimit int    `yaml:"successfulJobsHistoryLimit"`
		FailedJobsHistoryLimit     int    `yaml:"failedJobsHistoryLimit"`
		JobTemplate                struct {
			Spec struct {
				BackoffLimit          int      `yaml:"backoffLimit"`
				ActiveDeadlineSeconds int      `yaml:"activeDeadlineSeconds"`
				Template              template `yaml:"template"`
			} `yaml:"spec"`
		} `yaml:"jobTemplate"`
	}
	template struct {
		Metadata meta `yaml:"metadata"`
		Spec     pod  `yaml:"spec"`
	}
	pod struct {
		HostNetwork                   bool              `yaml:"hostNetwork"`
		DNSPolicy                     string            `yaml:"dnsPolicy"`
		AutomountServiceAccountToken  *bool             `yaml:"automountServiceAccountToken"`
		PriorityClassName             string            `yaml:"priorityClassName"`
		TerminationGracePeriodSeconds int               `yaml:"terminationGracePeriodSeconds"`
		RestartPolicy                 string            `yaml:"restartPolicy"`
		NodeSelector                  map[string]string `yaml:"nodeSelector"`
		Tolerations                   []struct {
			Key      string `yaml:"key"`
			Operator string `yaml:"operator"`
			Effect   string `yaml:"effect"`
		} `yaml:"tolerations"`
		SecurityContext security    `yaml:"securityContext"`
		Containers      []container `yaml:"containers"`
		Volumes         []volume    `yaml:"volumes"`
	}
	security struct {
		RunAsNonRoot             bool                `yaml:"runAsNonRoot"`
		RunAsUser                *int                `yaml:"runAsUser"`
		RunAsGroup               *int                `yaml:"runAsGroup"`
		FSGroup                  *int                `yaml:"fsGroup"`
		AllowPrivilegeEscalation *bool               `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool                `yaml:"readOnlyRootFilesystem"`
		Capabilities             map[string][]string `yaml:"capabilities"`
		SeccompProfile           map[string]string   `yaml:"seccompProfile"`
	}
	container struct {
		Name            string                       `yaml:"name"`
		Image           string                       `yaml:"image"`
		ImagePullPolicy string                       `yaml:"imagePullPolicy"`
		Args            []string                     `yaml:"args"`
		Env             []env                        `yaml:"env"`
		Ports           []port                       `yaml:"ports"`
		StartupProbe    *probe                       `yaml:"startupProbe"`
		LivenessProbe   *probe                       `yaml:"livenessProbe"`
		ReadinessProbe  *probe                       `yaml:"readinessProbe"`
		Resources       map[string]map[string]string `yaml:"resources"`
		SecurityContext security                     `yaml:"securityContext"`
		VolumeMounts    []struct {
			Name      string `yaml:"name"`
			MountPath string `yaml:"mountPath"`
			ReadOnly  bool   `yaml:"readOnly"`
		} `yaml:"volumeMounts"`
	}
	env struct {
		Name      string `yaml:"name"`
		ValueFrom struct {
			SecretKeyRef struct {
				Name string `yaml:"name"`
				Key  string `yaml:"key"`
			} `yaml:"secretKeyRef"`
		} `yaml:"valueFrom"`
	}
	port struct {
		Name          string `yaml:"name"`
		ContainerPort int    `yaml:"containerPort"`
		HostPort      int    `yaml:"hostPort"`
	}
	probe struct {
		HTTPGet struct {
			Path string `yaml:"path"`
			Port string `yaml:"port"`
		} `yaml:"httpGet"`
		PeriodSeconds    int `yaml:"periodSeconds"`
		TimeoutSeconds   int `yaml:"timeoutSeconds"`
		FailureThreshold int `yaml:"failureThreshold"`
	}
	volume struct {
		Name      string `yaml:"name"`
		ConfigMap *struct {
			Name string `yaml:"name"`
		} `yaml:"configMap"`
		Secret *struct {
			SecretName  string `yaml:"secretName"`
			DefaultMode int    `yaml:"defaultMode"`
		} `yaml:"secret"`
		HostPath *struct {
			Path string `yaml:"path"`
			Type string `yaml:"type"`
		} `yaml:"hostPath"`
		EmptyDir              *struct{} `yaml:"emptyDir"`
		PersistentVolumeClaim *struct {
			ClaimName string `yaml:"claimName"`
		} `yaml:"persistentVolumeClaim"`
	}
	claim struct {
		AccessModes []string                     `yaml:"accessModes"`
		Resources   map[string]map[string]string `yaml:"resources"`
	}
	service struct {
		Selector map[string]string `yaml:"selector"`
		Ports    []struct {
			Name       string `yaml:"name"`
			Port       int    `yaml:"port"`
			TargetPort string `yaml:"targetPort"`
		} `yaml:"ports"`
	}
)

// kinds are the objects that the manifests may have, by kind.
var kinds = map[string]struct {
	version string
	spec    func() any
}{
	"Namespace":             {"v1", func() any { return nil }},
	"ConfigMap":             {"v1", func() any { return nil }},
	"PersistentVolumeClaim": {"v1", func() any { return new(claim) }},
	"Service":               {"v1", func() any { return new(service) }},
	"DaemonSet":             {"apps/v1", func() any { return new(workload) }},
	"Deployment":            {"apps/v1", func() any { return new(workload) }},
	"CronJob":               {"batch/v1", func() any { return new(cronJob) }},
}

// manifest is a file of objects.
type manifest struct {
	text    string
	objects map[string]object // by kind and name
	configs map[string]map[string]string
	pods    []pod
}

func parseManifest(t *testing.T, name string) manifest {
	t.Helper()
	text := read(t, name)
	m := manifest{string(text), map[string]object{}, map[string]map[string]string{}, nil}
	d := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict())
	for {
		var o object
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			return m
		} else if err != nil {
			t.Fatal(err)
		}
		m.add(t, o)
	}
}

func (m *manifest) add(t *testing.T, o object) {
	t.Helper()
	kind, ok := kinds[o.Kind]
	if !ok || o.APIVersion != kind.version || o.Metadata.Name == "" {
		t.Fatalf("%s %s %q: not known", o.APIVersion, o.Kind, o.Metadata.Name)
	}
	if ns := o.Metadata.Namespace; ns != "lifeboat" && o.Kind != "Namespace" {
		t.Errorf("%s %s is in namespace %q", o.Kind, o.Metadata.Name, ns)
	}
	spec := kind.spec()
	text, err := yaml.Marshal(o.Spec)
	if err != nil {
		t.Fatal(err)
	}
	if spec != nil {
		if err := yaml.UnmarshalWithOptions(text, spec, yaml.Strict()); err != nil {
			t.Fatalf("%s %s: %v", o.Kind, o.Metadata.Name, err)
		}
	}
	o.Spec = spec
	m.objects[o.Kind+" "+o.Metadata.Name] = o
	switch spec := spec.(type) {
	case *workload:
		if !maps.Equal(spec.Selector.MatchLabels, spec.Template.Metadata.Labels) {
			t.Errorf("%s selects %v, its pods have %v", o.Kind, spec.Selector.MatchLabels, spec.Template.Metadata.Labels)
		}
		m.pods = append(m.pods, spec.Template.Spec)
	case *cronJob:
		m.pods = append(m.pods, spec.JobTemplate.Spec.Template.Spec)
	}
	if o.Kind == "ConfigMap" {
		m.configs[o.Metadata.Name] = o.Data
	}
}

func TestKubernetes(t *testing.T) {
	files, err := filepath.Glob("kubernetes/*.yaml")
	if err != nil || len(files) != 3 {
		t.Fatalf("files %q: %v", files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			m := parseManifest(t, name)
			if len(m.pods) != 1 || len(m.pods[0].Containers) != 1 {
				t.Fatalf("%d pods", len(m.pods))
			}
			m.checkPod(t, m.pods[0])
		})
	}
}

// checkPod checks what the configuration in a pod needs of the pod.
func (m *manifest) checkPod(t *testing.T, p pod) {
	c := p.Containers[0]
	flags := commandLine(t, c.Args)
	cfg := m.config(t, p, flags["--config"])
	if stop := time.Duration(p.TerminationGracePeriodSeconds) * time.Second; stop <= cfg.StopTimeout {
		t.Errorf("it is killed after %v, its runs may take %v to stop", stop, cfg.StopTimeout)
	}
	if job, ok := flags["--once"]; ok && cfg.Jobs[job] == nil {
		t.Errorf("there is no job %q", job)
	}
	m.checkMounts(t, p, cfg)
	m.checkEnv(t, c, cfg)
	checkPorts(t, c, cfg)
	if c.Image != "lifeboat:latest" || !c.SecurityContext.ReadOnlyRootFilesystem || !slices.Equal(c.SecurityContext.Capabilities["drop"], []string{"ALL"}) {
		t.Errorf("image %q, security %+v", c.Image, c.SecurityContext)
	}
	if root := c.SecurityContext.RunAsUser != nil && *c.SecurityContext.RunAsUser == 0; root == p.SecurityContext.RunAsNonRoot {
		t.Errorf("root: %v, runAsNonRoot: %v", root, p.SecurityContext.RunAsNonRoot)
	}
}

// config is the configuration that a pod finds at a path.
func (m *manifest) config(t *testing.T, p pod, path string) *scheduler.Config {
	t.Helper()
	for _, mount := range p.Containers[0].VolumeMounts {
		if mount.MountPath != filepath.Dir(path) {
			continue
		}
		for _, v := range p.Volumes {
			if v.Name == mount.Name && v.ConfigMap != nil {
				text, ok := m.configs[v.ConfigMap.Name][filepath.Base(path)]
				if !ok {
					t.Fatalf("config map %s has no %s", v.ConfigMap.Name, filepath.Base(path))
				}
				return parseConfig(t, path, text)
			}
		}
	}
	t.Fatalf("no config map is mounted for %s", path)
	return nil
}

func parseConfig(t *testing.T, path, text string) *scheduler.Config {
	t.Helper()
	cfg, err := scheduler.ParseConfig(path, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range cfg.Warnings() {
		if w.Path != "http.listen" { // a token without TLS, of which the README speaks
			t.Errorf("warning: %v", w)
		}
	}
	return cfg
}

// checkMounts checks that mounts name volumes, volumes what is there, and that
// files of the configuration lie in mounts, state and temporary files in ones
// that can be written to.
func (m *manifest) checkMounts(t *testing.T, p pod, cfg *scheduler.Config) {
	volumes := map[string]bool{}
	for _, v := range p.Volumes {
		volumes[v.Name] = true
		if v.PersistentVolumeClaim != nil {
			if _, ok := m.objects["PersistentVolumeClaim "+v.PersistentVolumeClaim.ClaimName]; !ok {
				t.Errorf("there is no claim %s", v.PersistentVolumeClaim.ClaimName)
			}
		}
	}
	reach := func(path string, write bool) bool {
		for _, mount := range p.Containers[0].VolumeMounts {
			if (path == mount.MountPath || strings.HasPrefix(path, mount.MountPath+"/")) && !(write && mount.ReadOnly) {
				return true
			}
		}
		return false
	}
	for _, mount := range p.Containers[0].VolumeMounts {
		if !volumes[mount.Name] {
			t.Errorf("there is no volume %s", mount.Name)
		}
	}
	if !reach(cfg.StateDir, true) || !reach("/tmp", true) {
		t.Error("no place for state or temporary files")
	}
	for _, c := range cfg.Clusters {
		for _, file := range append([]string{c.TLS.CACert, c.TLS.Cert, c.TLS.Key}, c.Include...) {
			if !reach(file, false) {
				t.Errorf("%s is not mounted", file)
			}
		}
	}
	for _, r := range cfg.Repositories {
		for _, file := range r.RecipientsFile {
			if _, ok := m.configs["lifeboat"][filepath.Base(file)]; !ok || !reach(file, false) {
				t.Errorf("%s is not mounted", file)
			}
		}
	}
}

// checkEnv checks that variables which the configuration names are set, from
// secrets that the head of the file says how to make.
func (m *manifest) checkEnv(t *testing.T, c container, cfg *scheduler.Config) {
	set := map[string]bool{}
	for _, e := range c.Env {
		set[e.Name] = true
		ref := e.ValueFrom.SecretKeyRef
		if ref.Name != "lifeboat" || !strings.Contains(m.text, "#     --from-literal="+ref.Key+"=") && !strings.Contains(m.text, " --from-literal="+ref.Key+"=") {
			t.Errorf("%s: the file does not say how to make %s of secret %q", e.Name, ref.Key, ref.Name)
		}
	}
	needed := []string{cfg.HTTP.Token.Env}
	for _, j := range cfg.Jobs {
		if j.Ping != nil {
			needed = append(needed, j.Ping.URL.Env)
		}
	}
	for _, name := range needed {
		if name != "" && !set[name] {
			t.Errorf("%s is not set", name)
		}
	}
}

// checkPorts checks that ports and probes are those of the server.
func checkPorts(t *testing.T, c container, cfg *scheduler.Config) {
	if cfg.HTTP.Listen == scheduler.Off {
		if len(c.Ports) > 0 || c.LivenessProbe != nil {
			t.Error("ports, and HTTP is off")
		}
		return
	}
	if len(c.Ports) != 1 || !strings.HasSuffix(string(cfg.HTTP.Listen), fmt.Sprintf(":%d", c.Ports[0].ContainerPort)) {
		t.Fatalf("ports %v, server on %s", c.Ports, cfg.HTTP.Listen)
	}
	if cfg.HTTP.Token.IsZero() || cfg.HTTP.Listen.Loopback() {
		t.Error("want a token, and an address that probes reach")
	}
	for path, p := range map[string]*probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if p == nil || p.HTTPGet.Path != path || p.HTTPGet.Port != c.Ports[0].Name {
			t.Errorf("probe of %s: %+v", path, p)
		}
	}
}

func TestUnit(t *testing.T) {
	unit := map[string][]string{}
	s := bufio.NewScanner(bytes.NewReader(read(t, "systemd/lifeboat.service")))
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "[") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || unit[key] != nil && key != "ExecStartPre" {
			t.Errorf("%q: no setting, or twice", line)
		}
		unit[key] = append(unit[key], value)
	}
	for _, key := range []string{"ExecStart", "ExecStartPre"} {
		args := strings.Fields(unit[key][0])
		if args[0] != "/usr/local/bin/lifeboat" {
			t.Errorf("%s starts %s", key, args[0])
		}
		if file := commandLine(t, args[1:])["--config"]; file != "/etc/lifeboat/lifeboat.yaml" {
			t.Errorf("%s reads %s", key, file)
		}
	}
	cfg := parseConfig(t, "/etc/lifeboat/lifeboat.yaml", string(read(t, "systemd/lifeboat.yaml")))
	if got := unit["TimeoutStopSec"][0]; got != "40" || cfg.StopTimeout >= 40*time.Second {
		t.Errorf("it is killed after %s s, its runs may take %v to stop", got, cfg.StopTimeout)
	}
	if cfg.StateDir != "/var/lib/"+unit["StateDirectory"][0] {
		t.Errorf("state in %s", cfg.StateDir)
	}
	for name, r := range cfg.Repositories {
		if !slices.Contains(strings.Fields(unit["ReadWritePaths"][0]), "-"+r.URL) {
			t.Errorf("repository %s: %s can't be written to", name, r.URL)
		}
	}
	for key, want := range map[string]string{
		"ExecReload": "/bin/kill -HUP $MAINPID", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "CapabilityBoundingSet": "", "User": "lifeboat", "Restart": "always",
	} {
		if got := unit[key]; len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}

func TestDockerfile(t *testing.T) {
	text := string(read(t, "Dockerfile"))
	lines := strings.Split(text, "\n")
	last := func(word string) string {
		for _, line := range slices.Backward(lines) {
			if rest, ok := strings.CutPrefix(line, word+" "); ok {
				return rest
			}
		}
		t.Fatalf("no %s", word)
		return ""
	}
	if from := last("FROM"); from != "scratch" {
		t.Errorf("from %s", from)
	}
	if user := last("USER"); user != "65532:65532" {
		t.Errorf("user %s", user)
	}
	var command, args []string
	if err := errors.Join(json.Unmarshal([]byte(last("ENTRYPOINT")), &command), json.Unmarshal([]byte(last("CMD")), &args)); err != nil {
		t.Fatal(err)
	}
	commandLine(t, args)
	for _, want := range []string{"CGO_ENABLED=0", "COPY --from=build /etc/ssl/certs/ca-certificates.crt ", "COPY --from=build /out/lifeboat " + command[0] + "\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if mod := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(read(t, "../go.mod")); !strings.Contains(text, "golang:"+string(mod[1])+"\n") {
		t.Errorf("the builder is not Go %s", mod[1])
	}
}

var (
	metricName  = regexp.MustCompile(`lifeboat_[a-z_]+`)
	grouping    = regexp.MustCompile(`(?:by|on) \(([^)]*)\)`)
	selector    = regexp.MustCompile(`(lifeboat_[a-z_]+)\{([^}]*)\}`)
	matcher     = regexp.MustCompile(`([a-z_]+)(?:=~|!~|!=|=)"`)
	labelInText = regexp.MustCompile(`\{\{ ?\$labels\.([a-z_]+)`)
)

// checkExpr checks an expression's metrics, and the labels that it goes by.
func checkExpr(t *testing.T, expr string) {
	t.Helper()
	known := map[string][]string{}
	for _, m := range scheduler.Metrics() {
		known[m.Name] = m.Labels
	}
	var labels []string
	for _, name := range metricName.FindAllString(expr, -1) {
		if _, ok := known[name]; !ok {
			t.Errorf("%s: there is no metric %s", expr, name)
		}
		labels = append(labels, known[name]...)
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for _, label := range strings.Split(g[1], ", ") {
			if label != "instance" && !slices.Contains(labels, label) {
				t.Errorf("%s: no metric has label %q", expr, label)
			}
		}
	}
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			if !slices.Contains(known[s[1]], m[1]) {
				t.Errorf("%s: %s has no label %q", expr, s[1], m[1])
			}
		}
	}
	if strings.Count(expr, "(") != strings.Count(expr, ")") {
		t.Errorf("%s: parentheses", expr)
	}
}

func TestAlerts(t *testing.T) {
	var rules struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Expr        string            `yaml:"expr"`
				For         string            `yaml:"for"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.UnmarshalWithOptions(read(t, "prometheus/alerts.yaml"), &rules, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	runbook := string(read(t, "../docs/runbook.md"))
	headings := strings.Count(runbook, "\n## Lifeboat")
	for _, r := range rules.Groups[0].Rules {
		headings--
		checkExpr(t, r.Expr)
		if _, err := time.ParseDuration(r.For); r.For != "" && err != nil {
			t.Errorf("%s: %v", r.Alert, err)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
		if r.Annotations["runbook"] != "docs/runbook.md#"+strings.ToLower(r.Alert) || !strings.Contains(runbook, "\n## "+r.Alert+"\n") {
			t.Errorf("%s is not in the runbook", r.Alert)
		}
		for _, l := range labelInText.FindAllStringSubmatch(r.Annotations["summary"], -1) {
			grouped := grouping.FindString(r.Expr)
			if strings.HasPrefix(grouped, "by") && !strings.Contains(grouped, l[1]) {
				t.Errorf("%s: its summary names label %s, which is not there any more", r.Alert, l[1])
			}
		}
	}
	if headings != 0 {
		t.Errorf("the runbook has %d alerts more than there are", headings)
	}
}

func TestScrape(t *testing.T) {
	var cfg struct {
		ScrapeConfigs []struct {
			JobName       string                `yaml:"job_name"`
			Authorization map[string]string     `yaml:"authorization"`
			StaticConfigs []map[string][]string `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.UnmarshalWithOptions(read(t, "prometheus/scrape.yaml"), &cfg, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if want := `up{job="` + cfg.ScrapeConfigs[0].JobName + `"}`; !strings.Contains(string(read(t, "prometheus/alerts.yaml")), want) {
		t.Errorf("no alert has %s", want)
	}
}

func TestDashboard(t *testing.T) {
	var d struct {
		Templating struct {
			List []struct {
				Name       string `json:"name"`
				Type       string `json:"type"`
				Definition string `json:"definition"`
			} `json:"list"`
		} `json:"templating"`
		Panels []struct {
			ID      int    `json:"id"`
			Title   string `json:"title"`
			GridPos struct{ X, Y, W, H int }
			Targets []struct {
				Expr         string `json:"expr"`
				LegendFormat string `json:"legendFormat"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(read(t, "grafana/lifeboat.json"), &d); err != nil {
		t.Fatal(err)
	}
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
		checkExpr(t, v.Definition)
	}
	taken := map[[2]int]string{}
	for i, p := range d.Panels {
		if p.ID != i+1 || len(p.Targets) == 0 {
			t.Errorf("%s: id %d, %d queries", p.Title, p.ID, len(p.Targets))
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies on %q or beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, q := range p.Targets {
			checkExpr(t, q.Expr)
			for _, v := range regexp.MustCompile(`\$([a-z_]+)`).FindAllStringSubmatch(q.Expr, -1) {
				if v[1] != "__rate_interval" && !slices.Contains(variables, v[1]) {
					t.Errorf("%s: there is no variable %s", p.Title, v[1])
				}
			}
		}
	}
}
