// Package stage is what the examples that end by themselves run on.
package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/sluicetest"
)

// Stage is what an example runs: sluice, a real Consul, and what else it starts, with their files
// in one directory.
type Stage struct {
	*sluicetest.Sluice                   // set by Serve
	Consul             *consultest.Agent // set by StartConsul
	Directory          string
	Out                io.Writer // for people

	name  string
	build func() error   // builds sluice once
	ends  []func() error // of what was started, in this order
}

// Run is the main function of an example: it calls show, and when that returns, or on a signal,
// everything ends and is removed. After an error the status of the process is 1.
func Run(name string, show func(context.Context, *Stage) error) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, name, show); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "\n%s: %v\n", name, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, show func(context.Context, *Stage) error) (err error) {
	s := &Stage{name: name, Out: os.Stdout}
	if s.Directory, err = os.MkdirTemp("", "sluice-"+name+"-"); err != nil {
		return err
	}
	building, cancel := context.WithCancel(ctx)
	s.build = sync.OnceValue(func() error { return sluicetest.Build(building, s.Directory, "sluice") })
	built := make(chan struct{})
	go func() { // while other programs start
		defer close(built)
		_ = s.build() // Serve has the error
	}()
	defer func() {
		for _, end := range slices.Backward(s.ends) {
			err = errors.Join(err, end())
		}
		cancel()
		<-built
		err = errors.Join(err, os.RemoveAll(s.Directory))
	}()
	return show(ctx, s)
}

// Line prints a line.
func (s *Stage) Line(format string, args ...any) { fmt.Fprintf(s.Out, format+"\n", args...) }

// End has end called when the example ends, before those of earlier calls.
func (s *Stage) End(end func() error) { s.ends = append(s.ends, end) }

// File returns the path of a file in the directory.
func (s *Stage) File(name string) string { return filepath.Join(s.Directory, name) }

// Replace writes a file in the directory. Nobody reads a part of it.
func (s *Stage) Replace(name string, text []byte) error {
	if err := os.WriteFile(s.File(name)+"~", text, 0o600); err != nil {
		return err
	}
	return os.Rename(s.File(name)+"~", s.File(name))
}

// StartConsul starts an agent of Consul.
func (s *Stage) StartConsul(ctx context.Context) (err error) {
	if s.Consul, err = consultest.StartAgent(ctx, consultest.Options{Node: s.name, Progress: s.Out}); err == nil {
		s.End(s.Consul.Close)
	}
	return err
}

// StartApp serves an instance of a service, and registers it in Consul with a check of every
// second.
func (s *Stage) StartApp(service, id string, tags []string, app http.Handler) error {
	server := httptest.NewServer(app)
	s.End(func() error { server.Close(); return nil })
	address := server.Listener.Addr()
	return s.Consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: id, Name: service, Tags: tags, Address: "127.0.0.1", Port: address.(*net.TCPAddr).Port,
		Check: &api.AgentServiceCheck{TCP: address.String(), Interval: "1s", Timeout: "5s"},
	})
}

// Command runs a program with arguments, which it prints as one would type them, without a version
// in the name of the program, and with more of them that are about this stage. It returns what the
// program has written.
func (s *Stage) Command(ctx context.Context, program string, more []string, arguments ...string) (output string, err error) {
	name, _, _ := strings.Cut(filepath.Base(program), "-")
	typed := []string{"$", name}
	for _, a := range arguments {
		if strings.ContainsAny(a, "{} ") {
			a = "'" + a + "'"
		}
		typed = append(typed, a)
	}
	s.Line("%s", strings.Join(typed, " "))
	text, err := exec.CommandContext(ctx, program, slices.Concat(arguments, more)...).CombinedOutput()
	output = strings.TrimSpace(string(text))
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", name, err, output)
	}
	return output, err
}

// Configure replaces the configuration, which a sluice that runs then reads.
func (s *Stage) Configure(text string) error { return s.Replace("sluice.yaml", []byte(text)) }

// Serve starts sluice with a configuration. It has a listener web.
func (s *Stage) Serve(ctx context.Context, configuration string) (err error) {
	if err := errors.Join(s.build(), s.Configure(configuration)); err != nil {
		return err
	}
	s.Sluice, err = sluicetest.Start(ctx, sluicetest.Options{
		Program: s.File("sluice"), Args: []string{"--config", s.File("sluice.yaml")}, Log: s.File("sluice.log"), Admin: sluicetest.Any,
	})
	if err == nil {
		s.End(s.Sluice.Stop)
	}
	return err
}

// StartLoad sends requests to a path as [sluicetest.StartLoad] does.
func (s *Stage) StartLoad(path string, perSecond int) *sluicetest.Load {
	load := sluicetest.StartLoad(s.URL()+path, perSecond)
	s.End(func() error { load.Stop(); return nil })
	return load
}
