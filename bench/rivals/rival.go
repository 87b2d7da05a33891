//go:build linux

package main

import (
	"context"
	"embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/template"

	"sluice/bench/machine"
	"sluice/test/pinned"
)

//go:embed conf
var conf embed.FS

// verbatim are the files in conf that are not templates.
var verbatim = []string{"upstream.ctmpl"}

// settings is the data for the templates in conf.
type settings struct {
	Dir    string // of this run, with all files of conf
	Root   bool   // running as root: nginx must not drop to a user who cannot read Dir
	Listen string // "host:port" for clients
	Admin  string // "host:port" of an admin page
	Nginx  string // path of the program
	Consul consulAddress
}

// rival is a load balancer in the comparison, also sluice.
type rival struct {
	name string
	// prepare finds or builds the programs. After an error the rival is left out.
	prepare func(ctx context.Context, t tools) (entry, error)
}

// entry is a rival that can be started.
type entry struct {
	name     string
	version  string
	commands func(settings) []command // in the order in which they start
}

// command is one program of an entry.
type command struct {
	args  []string
	death syscall.Signal // see subprocess.Options
}

// tools is the environment of prepare.
type tools struct {
	dir      string // for programs that are built anew each time
	progress io.Writer
}

var rivals = []rival{
	{"sluice", prepareSluice},
	{"haproxy-dns", prepareHAProxy},
	{"nginx-template", prepareNginx},
	{"fabio", prepareFabio},
	{"traefik", prepareTraefik},
}

// selectRivals reads a comma-separated list of names.
func selectRivals(list string) ([]rival, error) {
	if list == "all" {
		return rivals, nil
	}
	var selected []rival
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(rivals, func(r rival) bool { return r.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("unknown rival %q; there are: %s", name, strings.Join(rivalNames(), ", "))
		}
		selected = append(selected, rivals[i])
	}
	return selected, nil
}

func rivalNames() []string {
	var names []string
	for _, r := range rivals {
		names = append(names, r.name)
	}
	return names
}

func prepareSluice(ctx context.Context, t tools) (entry, error) {
	path, err := machine.BuildSluice(ctx, t.dir)
	if err != nil {
		return entry{}, err
	}
	return entry{"sluice", machine.Commit(ctx), func(s settings) []command {
		return []command{{args: []string{path, "run", "--config", filepath.Join(s.Dir, "sluice.yaml")}}}
	}}, nil
}

func prepareHAProxy(ctx context.Context, _ tools) (entry, error) {
	if err := machine.Require(map[string]string{"haproxy": "haproxy"}); err != nil {
		return entry{}, err
	}
	program := machine.Program("haproxy")
	return entry{"haproxy-dns", machine.FirstLine(ctx, program, "-v"), func(s settings) []command {
		return []command{{args: []string{program, "-db", "-f", filepath.Join(s.Dir, "haproxy.cfg")}, death: syscall.SIGTERM}}
	}}, nil
}

func prepareNginx(ctx context.Context, t tools) (entry, error) {
	if err := machine.Require(map[string]string{"nginx": "nginx"}); err != nil {
		return entry{}, err
	}
	template, version, err := build(ctx, t, pinned.Program{
		Name: "consul-template", Title: "consul-template", Module: "github.com/hashicorp/consul-template", Dir: "bench/rivals/consul-template",
	})
	if err != nil {
		return entry{}, err
	}
	nginx := machine.Program("nginx")
	return entry{"nginx-template", machine.FirstLine(ctx, nginx, "-v") + " with " + version, func(s settings) []command {
		return []command{
			{args: []string{nginx, "-e", "stderr", "-p", s.Dir, "-c", filepath.Join(s.Dir, "nginx.conf")}, death: syscall.SIGTERM},
			{args: []string{template, "-config", filepath.Join(s.Dir, "consul-template.hcl")}},
		}
	}}, nil
}

func prepareFabio(ctx context.Context, t tools) (entry, error) {
	program, version, err := build(ctx, t, pinned.Program{
		Name: "fabio", Title: "fabio", Module: "github.com/fabiolb/fabio", Dir: "bench/rivals/fabio",
	})
	if err != nil {
		return entry{}, err
	}
	return entry{"fabio", version, func(s settings) []command {
		args := []string{program, "-cfg", filepath.Join(s.Dir, "fabio.properties")}
		if s.Root {
			args = append(args, "-insecure") // required to run as root
		}
		return []command{{args: args}}
	}}, nil
}

func prepareTraefik(ctx context.Context, t tools) (entry, error) {
	program, version, err := build(ctx, t, pinned.Program{
		Name: "traefik", Title: "Traefik", Module: "github.com/traefik/traefik/v3", Package: "github.com/traefik/traefik/v3/cmd/traefik", Dir: "bench/rivals/traefik",
	})
	if err != nil {
		return entry{}, err
	}
	return entry{"traefik", version, func(s settings) []command {
		return []command{{args: []string{program, "--configFile=" + filepath.Join(s.Dir, "traefik.yaml")}}}
	}}, nil
}

// build returns the path of the program, and its name with its version.
func build(ctx context.Context, t tools, p pinned.Program) (path, version string, err error) {
	if path, err = p.Binary(ctx, t.progress); err != nil {
		return "", "", fmt.Errorf("build %s: %w", p.Title, err)
	}
	number, err := p.Version(ctx)
	return path, p.Title + " " + strings.TrimPrefix(number, "v"), err
}

// writeConf writes all files of conf to the directory of the run, and the first upstream of
// nginx, which has no instances.
func writeConf(s settings) error {
	files, err := conf.ReadDir("conf")
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := conf.ReadFile("conf/" + file.Name())
		if err != nil {
			return err
		}
		if !slices.Contains(verbatim, file.Name()) {
			if text, err = fill(file.Name(), text, s); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(s.Dir, file.Name()), text, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(s.Dir, "upstream.conf"), []byte("upstream star { server 127.0.0.1:65535; }\n"), 0o644)
}

func fill(name string, text []byte, s settings) ([]byte, error) {
	t, err := template.New(name).Parse(string(text))
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	if err := t.Execute(&b, s); err != nil {
		return nil, err
	}
	return []byte(b.String()), nil
}
