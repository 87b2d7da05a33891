package discoverytest

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
)

// RunAgent does what "consul agent -config-file FILE" does, as far as [Agent] can, until ctx ends:
// args are its arguments after "agent". Of the configuration count node_name, client_addr,
// ports.http and data_dir, where it keeps its state until it starts again.
func RunAgent(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	file := flags.String("config-file", "", "configuration of Consul, as JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var config struct {
		Node    string `json:"node_name"`
		Address string `json:"client_addr"`
		DataDir string `json:"data_dir"`
		Ports   struct{ HTTP int }
	}
	text, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return fmt.Errorf("%s: %w", *file, err)
	}
	a := NewAgent(config.Node)
	defer a.Close()
	if config.DataDir != "" {
		state := filepath.Join(config.DataDir, "state.json")
		if err := a.loadFile(state); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, a.saveFile(state)) }()
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(config.Address, strconv.Itoa(config.Ports.HTTP)))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: a}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	server.Close() // queries that block would not end by themselves
	<-served
	return nil
}

func (a *Agent) loadFile(path string) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	return a.Load(file)
}

func (a *Agent) saveFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(a.Save(file), file.Close())
}
