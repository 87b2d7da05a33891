//go:build linux

package main

import (
	"bufio"
	"context"
	"embed"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/template"

	"sluice/bench/machine"
)

//go:embed conf
var conf embed.FS

var templates = template.Must(template.ParseFS(conf, "conf/*.conf", "conf/*.cfg", "conf/*.yaml"))

// settings is the data for the templates in conf/.
type settings struct {
	Name      string
	Dir       string // of this run, removed at its end
	Root      bool   // running as root: nginx must not drop to a user who cannot read Dir
	Listen    string // "host:port"
	Admin     string // "host:port" of sluice's admin listener
	Peers     []string
	Threads   int
	LogSink   string // where HAProxy forwards its log, "" for no log
	Splice    bool   // let HAProxy move bodies within the kernel
	TCP       bool   // forward connections, without HTTP
	TLS       bool   // to clients, with Certificate and Key
	HTTP2     bool   // to clients
	HTTP3     bool   // to clients, also; with TLS
	GRPC      bool   // to peers, without TLS
	SmallBody string

	// For conf/pools.yaml.
	Consul   string // "host:port"
	Services []string
}

// render writes the named template to a file of the run's directory.
func (s settings) render(name string) (path string, err error) {
	path = filepath.Join(s.Dir, s.Name+"-"+name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := templates.ExecuteTemplate(f, name, s); err != nil {
		f.Close()
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	return path, f.Close()
}

// Files of the certificate, in Dir.
func (s settings) Certificate() string { return filepath.Join(s.Dir, "localhost.pem") }
func (s settings) Key() string         { return filepath.Join(s.Dir, "localhost.key") }
func (s settings) Bundle() string      { return filepath.Join(s.Dir, "localhost.bundle") } // both

// Port returns the port of Listen.
func (s settings) Port() string {
	_, port, _ := net.SplitHostPort(s.Listen)
	return port
}

// contender is a proxy in the comparison.
type contender struct {
	name    string
	binary  string // the path of sluice, "" for other proxies
	version string // where it is built here, and not sluice
	command func(settings) ([]string, error)
}

// builds are called only if they are needed.
type builds struct {
	sluice func() (path string, err error)
	caddy  func() (path, version string, err error)
}

// contenders reads the -proxies list: names, or NAME=PATH for a sluice binary
// built elsewhere.
func contenders(list string, build builds) ([]contender, error) {
	var all []contender
	for item := range strings.SplitSeq(list, ",") {
		name, path, isBinary := strings.Cut(strings.TrimSpace(item), "=")
		c := contender{name: name}
		switch {
		case isBinary:
			if _, err := os.Stat(path); err != nil {
				return nil, fmt.Errorf("-proxies %s: %w", item, err)
			}
			c.binary, c.command = path, sluiceCommand(path)
		case name == "sluice":
			path, err := build.sluice()
			if err != nil {
				return nil, err
			}
			c.binary, c.command = path, sluiceCommand(path)
		case name == "caddy":
			path, version, err := build.caddy()
			if err != nil {
				return nil, err
			}
			c.version, c.command = version, caddyCommand(path)
		case name == "nginx":
			c.command = nginxCommand("nginx.conf")
		case name == "haproxy":
			c.command = haproxyCommand
		case name == "haproxy-nolog":
			c.command = func(s settings) ([]string, error) {
				s.LogSink = ""
				return haproxyCommand(s)
			}
		case name == "haproxy-splice":
			c.command = func(s settings) ([]string, error) {
				s.Splice = true
				return haproxyCommand(s)
			}
		case name == "relay":
			c.command = func(s settings) ([]string, error) {
				s.TCP = true
				return haproxyCommand(s)
			}
		case name == "fasthttp":
			c.command = bareCommand
		default:
			return nil, fmt.Errorf("unknown proxy %q; there are: nginx, haproxy, haproxy-nolog, haproxy-splice, relay, sluice, caddy, fasthttp, NAME=PATH", name)
		}
		all = append(all, c)
	}
	return all, nil
}

// start runs c on the given CPUs and returns once it answers at
// s.Listen, and at the further addresses.
func (c contender) start(ctx context.Context, cpus string, s settings, answers probe, also ...string) (*process, error) {
	command, err := c.command(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	p, err := startProcess(c.name, cpus, s.Dir, command...)
	if err != nil {
		return nil, err
	}
	if err := p.waitServing(ctx, answers, append(slices.Clone(also), s.Listen)...); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func nginxCommand(conf string) func(settings) ([]string, error) {
	return func(s settings) ([]string, error) {
		path, err := s.render(conf)
		if err != nil {
			return nil, err
		}
		return []string{machine.Program("nginx"), "-p", s.Dir, "-e", "stderr", "-c", path}, nil
	}
}

func haproxyCommand(s settings) ([]string, error) {
	path, err := s.render("haproxy.cfg")
	if err != nil {
		return nil, err
	}
	return []string{machine.Program("haproxy"), "-db", "-f", path}, nil
}

func sluiceCommand(binary string) func(settings) ([]string, error) {
	return func(s settings) ([]string, error) {
		path, err := s.render("sluice.yaml")
		if err != nil {
			return nil, err
		}
		return []string{binary, "run", "--config", path}, nil
	}
}

// bareCommand returns the command of the fasthttp reference proxy, which is this program.
func bareCommand(s settings) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return append([]string{self, proxyArgument, s.Listen}, s.Peers...), nil
}

// startOrigin runs nginx as all peers of requests without a body: s.Peers and those in also.
func startOrigin(ctx context.Context, cpus string, s settings, also []string) (*process, error) {
	if err := writeBodies(filepath.Join(s.Dir, "www")); err != nil {
		return nil, err
	}
	s.SmallBody = strings.Repeat("x", smallBytes)
	s.Name, s.Listen = "origin", s.Peers[0]
	s.Peers = append(slices.Clone(s.Peers), also...)
	return contender{name: s.Name, command: nginxCommand("origin.conf")}.start(ctx, cpus, s, probeHTTP1, s.Peers...)
}

// startChild runs this program as peers.
func startChild(ctx context.Context, name, argument, cpus string, s settings) (*process, error) {
	s.Name, s.Listen = name, s.Peers[len(s.Peers)-1]
	return contender{name: s.Name, command: func(s settings) ([]string, error) {
		self, err := os.Executable()
		return append([]string{self, argument}, s.Peers...), err
	}}.start(ctx, cpus, s, probeConnection, s.Peers...)
}

// writeBodies makes the files that the origin serves.
func writeBodies(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for name, size := range map[string]int{"100k": 100 * kB, "10m": 10 * MB} {
		body := []byte(strings.Repeat("0123456789", size/10))
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o644); err != nil {
			return err
		}
	}
	long, err := os.Create(filepath.Join(dir, "1g"))
	if err != nil {
		return err
	}
	defer long.Close()
	return long.Truncate(GiB) // without blocks on the disk
}

// logSink reads and discards the lines that HAProxy forwards from its ring.
type logSink struct {
	listener net.Listener
	wg       sync.WaitGroup
}

// newLogSink listens on a free loopback port until close.
func newLogSink() (*logSink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for HAProxy's log: %w", err)
	}
	s := &logSink{listener: l}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // close was called
			}
			s.wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(io.Discard, bufio.NewReaderSize(c, 256<<10))
			})
		}
	})
	return s, nil
}

func (s *logSink) address() string { return s.listener.Addr().String() }

// close stops accepting and waits until HAProxy, stopped before, has closed
// its connections.
func (s *logSink) close() {
	_ = s.listener.Close()
	s.wg.Wait()
}
