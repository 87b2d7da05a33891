//go:build linux

package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/template"
	"time"

	"sluice/bench/machine"
	"sluice/test/pinned"
	"sluice/test/subprocess"
)

//go:embed conf
var conf embed.FS

var templates = template.Must(template.ParseFS(conf, "conf/*"))

// settings is the data for the templates in conf.
type settings struct {
	Dir      string // of this replica, with its files
	Root     bool   // running as root: nginx must not drop to a user who cannot read Dir
	Listen   string // "host:port" for clients
	Admin    string // "host:port"
	Peers    []server
	Policy   string // in the program's own words; "" is its default
	Reloaded bool   // another configuration with the same peers
}

// server is a peer in the configuration of a proxy.
type server struct {
	Address string
	Weight  int
}

// Port is the port of Listen.
func (s settings) Port() string {
	_, port, _ := net.SplitHostPort(s.Listen)
	return port
}

func (s settings) file(name string) string { return filepath.Join(s.Dir, name) }

// program is a load balancer that can be started.
type program struct {
	version string
	files   []string                // of conf
	command func(settings) []string // that serves
	reload  func(settings) []string // that makes it read its files again; nil: reloadBy
	signal  syscall.Signal          // the same by a signal; 0: it watches its files
}

// proxy is a program with a policy: a column of the tables.
type proxy struct {
	name    string
	program string // in programs
	policy  string
	path    string // of a sluice built elsewhere; "" for all others
}

// proxies are the ones that are compared, in the order of the tables.
var proxies = []proxy{
	{name: "sluice", program: "sluice"},
	{name: "sluice-least_conn", program: "sluice", policy: "least_conn"},
	{name: "nginx", program: "nginx"},
	{name: "nginx-least_conn", program: "nginx", policy: "least_conn"},
	{name: "nginx-random2", program: "nginx", policy: "random two least_conn"},
	{name: "haproxy-leastconn", program: "haproxy", policy: "leastconn"},
	{name: "haproxy-random2", program: "haproxy", policy: "random(2)"},
	{name: "traefik-wrr", program: "traefik", policy: "wrr"},
	{name: "traefik-p2c", program: "traefik", policy: "p2c"},
	{name: "traefik-leasttime", program: "traefik", policy: "leasttime"},
	{name: "caddy-least_conn", program: "caddy", policy: "least_conn"},
	{name: "caddy-random2", program: "caddy", policy: "random_choose 2"},
}

// selectProxies reads a comma-separated list of names, of programs ("nginx" is one of its policies,
// "nginx-*" all), or NAME=PATH for a sluice built elsewhere.
func selectProxies(list string) ([]proxy, error) {
	if list == "all" {
		return proxies, nil
	}
	var selected []proxy
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if name, path, isPath := strings.Cut(item, "="); isPath {
			if _, err := os.Stat(path); err != nil {
				return nil, fmt.Errorf("-proxies %s: %w", item, err)
			}
			selected = append(selected, proxy{name: name, program: "sluice", path: path})
			continue
		}
		before := len(selected)
		for _, p := range proxies {
			if matched, err := filepath.Match(item, p.name); err == nil && matched {
				selected = append(selected, p)
			}
		}
		if len(selected) == before {
			return nil, fmt.Errorf("unknown proxy %q; there are: %s, patterns such as nginx*, and NAME=PATH", item, strings.Join(proxyNames(), ", "))
		}
	}
	return selected, nil
}

func proxyNames() []string {
	var names []string
	for _, p := range proxies {
		names = append(names, p.name)
	}
	return names
}

// programs finds or builds each program once.
type programs struct {
	dir   string // for programs that are built anew each time
	found map[string]program
	lost  map[string]error
}

func newPrograms(dir string) *programs {
	return &programs{dir: dir, found: make(map[string]program), lost: make(map[string]error)}
}

// of returns the program of a proxy, or why it cannot be had.
func (all *programs) of(ctx context.Context, p proxy, progress io.Writer) (program, error) {
	key := p.program + "=" + p.path
	if err := all.lost[key]; err != nil {
		return program{}, err
	}
	if found, ok := all.found[key]; ok {
		return found, nil
	}
	found, err := all.find(ctx, p, progress)
	if err != nil {
		all.lost[key] = err
		return program{}, err
	}
	all.found[key] = found
	return found, nil
}

func (all *programs) find(ctx context.Context, p proxy, progress io.Writer) (program, error) {
	if p.program == "nginx" || p.program == "haproxy" || p.program == "caddy" {
		if err := machine.Require(map[string]string{p.program: p.program}); err != nil {
			return program{}, err
		}
	}
	path := machine.Program(p.program)
	switch p.program {
	case "sluice":
		path = p.path
		version := p.name + ": " + p.path
		if path == "" {
			var err error
			if path, err = machine.BuildSluice(ctx, all.dir); err != nil {
				return program{}, err
			}
			version = machine.Commit(ctx)
		}
		return program{version: version, files: []string{"sluice.yaml"}, signal: syscall.SIGHUP,
			command: func(s settings) []string { return []string{path, "run", "--config", s.file("sluice.yaml")} }}, nil
	case "nginx":
		return program{version: machine.FirstLine(ctx, path, "-v"), files: []string{"nginx.conf"}, signal: syscall.SIGHUP,
			command: func(s settings) []string {
				return []string{path, "-e", "stderr", "-p", s.Dir, "-c", s.file("nginx.conf")}
			}}, nil
	case "haproxy":
		return program{version: machine.FirstLine(ctx, path, "-v"), files: []string{"haproxy.cfg"}, signal: syscall.SIGUSR2,
			command: func(s settings) []string { return []string{path, "-W", "-db", "-f", s.file("haproxy.cfg")} }}, nil
	case "caddy":
		version, _, _ := strings.Cut(machine.FirstLine(ctx, path, "version"), " ")
		return program{version: "Caddy " + version, files: []string{"Caddyfile"},
			command: func(s settings) []string {
				return []string{path, "run", "--config", s.file("Caddyfile"), "--adapter", "caddyfile"}
			},
			reload: func(s settings) []string {
				return []string{path, "reload", "--config", s.file("Caddyfile"), "--adapter", "caddyfile", "--address", s.Admin}
			}}, nil
	case "traefik":
		pin := pinned.Program{
			Name: "traefik", Title: "Traefik", Module: "github.com/traefik/traefik/v3", Package: "github.com/traefik/traefik/v3/cmd/traefik", Dir: "bench/rivals/traefik",
		}
		path, err := pin.Binary(ctx, progress)
		if err != nil {
			return program{}, fmt.Errorf("build Traefik: %w", err)
		}
		version, err := pin.Version(ctx)
		return program{version: "Traefik " + strings.TrimPrefix(version, "v"), files: []string{"traefik.yaml", "traefik-routes.yaml"},
			command: func(s settings) []string { return []string{path, "--configFile=" + s.file("traefik.yaml")} }}, err
	}
	return program{}, fmt.Errorf("no program %q", p.program)
}

// replica is a running proxy.
type replica struct {
	program  program
	settings settings
	process  *subprocess.Process
	output   *subprocess.Tail
}

// startReplica starts a proxy in front of the peers, and waits until it answers. dir is removed by
// close.
func startReplica(ctx context.Context, of program, policy string, peers []server) (_ *replica, err error) {
	addresses, err := machine.FreeAddresses(2)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sluice-quality-")
	if err != nil {
		return nil, err
	}
	r := &replica{program: of, output: subprocess.NewTail(8 << 10), settings: settings{
		Dir: dir, Root: os.Geteuid() == 0, Listen: addresses[0], Admin: addresses[1], Peers: peers, Policy: policy,
	}}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := r.write(); err != nil {
		return nil, err
	}
	command := of.command(r.settings)
	if r.process, err = subprocess.Start(subprocess.Options{
		Program: command[0], Args: command[1:], Dir: dir, Output: r.output,
		Env:         []string{"HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir},
		DeathSignal: syscall.SIGTERM, // nginx and HAProxy then end their workers
	}); err != nil {
		return nil, err
	}
	return r, r.awaitServing(ctx)
}

// write writes the files of the configuration, each as a whole: Traefik watches its own.
func (r *replica) write() error {
	for _, name := range r.program.files {
		var text strings.Builder
		if err := templates.ExecuteTemplate(&text, name, r.settings); err != nil {
			return err
		}
		path := r.settings.file(name)
		if err := os.WriteFile(path+".new", []byte(text.String()), 0o644); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

// awaitServing waits until a request through the proxy is answered by a peer. An open port is not
// enough: Traefik opens its own before it has routes.
func (r *replica) awaitServing(ctx context.Context) error {
	return r.await(ctx, healthPath, func(status int) bool { return status == http.StatusOK })
}

// await waits until the status for a path is as wanted.
func (r *replica) await(ctx context.Context, path string, wanted func(status int) bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.settings.Listen+path, nil)
		if err != nil {
			return err
		}
		response, err := transport.RoundTrip(request)
		if err == nil {
			_ = response.Body.Close() // only the status counts
			if wanted(response.StatusCode) {
				return nil
			}
			err = fmt.Errorf("%s: %s", path, response.Status)
		}
		select {
		case <-r.process.Exited():
			return fmt.Errorf("ended: %v\n%s", r.process.Err(), r.output)
		case <-ctx.Done():
			return fmt.Errorf("%w\n%s", err, r.output)
		case <-tick.C:
		}
	}
}

// reload gives the proxy another configuration with the same peers, and waits until it uses it: it
// redirects one more path then.
func (r *replica) reload(ctx context.Context) error {
	r.settings.Reloaded = true
	if err := r.write(); err != nil {
		return err
	}
	switch {
	case r.program.reload != nil:
		command := r.program.reload(r.settings)
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Env = append(os.Environ(), "HOME="+r.settings.Dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, out)
		}
	case r.program.signal != 0:
		if err := syscall.Kill(r.process.PID(), r.program.signal); err != nil {
			return err
		}
	}
	if err := r.await(ctx, "/reloaded", func(status int) bool { return status/100 == 3 }); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	return nil
}

func (r *replica) close() error {
	var err error
	if r.process != nil {
		err = r.process.Stop()
	}
	return errors.Join(err, os.RemoveAll(r.settings.Dir))
}

// versions are those of the programs that were found.
func (all *programs) versions() []string {
	var versions []string
	for _, p := range all.found {
		versions = append(versions, p.version)
	}
	slices.Sort(versions)
	return versions
}
