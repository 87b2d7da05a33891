package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"sluice/balancer"
	"sluice/config"
	"sluice/discovery/consul"
	"sluice/doctor"
	"sluice/gateway"
)

// examination is one run of the doctor command.
type examination struct {
	api           // of a running sluice
	askAdmin bool // the command line names it: it has to answer

	in             config.Input
	options        doctor.Options
	agentAddresses []string // NODE=URL
	connect        bool
	connectTimeout time.Duration

	asJSON, fix, yes, dryRun bool
}

func newDoctor() *cobra.Command {
	e := examination{in: config.Input{Getenv: os.Getenv}}
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong in Consul's catalog",
		Long: "Look at Consul's catalog as a load balancer sees it: duplicates and ghosts,\n" +
			"instances on dead nodes, without a check, critical for long, at addresses that\n" +
			"cannot work, and what ACLs hide. With --config also whether the services that\n" +
			"the routes lead to are there and pass.\n\n" +
			"--fix deregisters duplicates, through the agent that registered them. Nothing\n" +
			"else changes anything.\n\n" +
			"The exit status is 0 if no error was found, 1 if there was one or a duplicate\n" +
			"could not be deregistered, and 2 if it was not possible to look.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e.askAdmin = cmd.Flags().Changed("admin")
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if err := e.checkFlags(isTerminal(cmd.InOrStdin())); err != nil {
				return err
			}
			sick, err := e.run(ctx, cmd.InOrStdin(), cmd.OutOrStdout())
			switch {
			case err != nil:
				return &exitError{exitUnseen, err}
			case sick:
				return &exitError{exitFailed, nil}
			}
			return nil
		},
	}
	flags := command.Flags()
	flags.StringVarP(&e.in.File, "config", "c", "", "configuration `file` of sluice: where Consul is, and which services are wanted")
	flags.StringVar(&e.in.Consul, "consul", "", "`URL` of the Consul agent (default http://127.0.0.1:8500)")
	flags.StringVar(&e.options.Datacenter, "datacenter", "", "`name` of the data centre (default that of the agent)")
	flags.StringArrayVar(&e.options.Services, "service", nil, "look only at the Consul service with this `name`; may be given several times")
	flags.DurationVar(&e.options.Thresholds.CriticalFor, "critical-for", time.Hour, "how long an instance may be critical")
	flags.BoolVar(&e.connect, "connect", false, "open a connection to each instance in service")
	flags.DurationVar(&e.connectTimeout, "connect-timeout", 2*time.Second, "how long each may take")
	flags.StringArrayVar(&e.agentAddresses, "agent-address", nil, "where the agent of a node answers, as `NODE=URL`; may be given several times")
	e.addFlags(command)
	flags.BoolVar(&e.asJSON, "json", false, "print the report as JSON")
	flags.BoolVar(&e.fix, "fix", false, "deregister duplicates through the agents that registered them; asks for each")
	flags.BoolVarP(&e.yes, "yes", "y", false, "with --fix: do not ask")
	flags.BoolVar(&e.dryRun, "dry-run", false, "with --fix: only show what it would do")
	return command
}

// isTerminal reports whether somebody can be asked at the other end of in.
func isTerminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// checkFlags finds what does not go together, and reads the addresses of
// agents. Terminal says that the operator can be asked.
func (e *examination) checkFlags(terminal bool) error {
	asks := e.fix && !e.yes && !e.dryRun
	switch {
	case !e.fix && (e.yes || e.dryRun):
		return &usageError{errors.New("--yes and --dry-run are for --fix")}
	case asks && e.asJSON:
		return &usageError{errors.New("--fix --json cannot ask: add --yes or --dry-run")}
	case asks && !terminal:
		return &usageError{errors.New("--fix asks for each duplicate, and this is no terminal: add --yes or --dry-run")}
	case e.options.Thresholds.CriticalFor < 0:
		return &usageError{fmt.Errorf("--critical-for %v: want a time that is not negative", e.options.Thresholds.CriticalFor)}
	case e.connectTimeout <= 0:
		return &usageError{fmt.Errorf("--connect-timeout %v: want a time over 0", e.connectTimeout)}
	}
	e.options.AgentURLs = make(map[string]string, len(e.agentAddresses))
	for _, entry := range e.agentAddresses {
		node, at, ok := strings.Cut(entry, "=")
		if !ok || node == "" || at == "" {
			return &usageError{fmt.Errorf("--agent-address %q: want NODE=URL", entry)}
		}
		e.options.AgentURLs[node] = at
	}
	return nil
}

// run examines, fixes if that is wanted, and reports whether something is wrong
// in the end. An error says why it was not possible to look.
func (e *examination) run(ctx context.Context, in io.Reader, out io.Writer) (sick bool, err error) {
	if err := e.configure(); err != nil {
		return false, err
	}
	if err := e.askPeers(ctx); err != nil {
		return false, err
	}
	if e.connect {
		e.options.ConnectTimeout = e.connectTimeout
	}
	d := doctor.New(e.options)
	defer d.Close()
	report, err := d.Examine(ctx)
	if err != nil {
		return false, err
	}
	sick = report.Count.Errors > 0
	if !e.asJSON {
		if err := report.WriteText(out); err != nil {
			return false, err
		}
	}
	if e.fix {
		done, err := e.fixAll(ctx, d, report, bufio.NewReader(in), out)
		if err != nil {
			return false, err
		}
		sick = sick || !done
	}
	if e.asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		err = encoder.Encode(report)
	}
	return sick, err
}

// configure takes what the configuration says of Consul and of services.
func (e *examination) configure() error {
	if e.in.File == "" {
		if e.in.Consul != "" {
			e.options.Consul = consul.ClientOptions{Addresses: []string{e.in.Consul}}
		}
		return nil
	}
	revision, err := e.in.Load()
	if err != nil {
		return err
	}
	// With a catalog, what a route names is a service too.
	c, _ := revision.Config.WithFound(nil)
	e.options.Consul = gateway.ClientOptions(c.Consul, zerolog.Nop())
	if e.options.Datacenter == "" {
		e.options.Datacenter = c.Consul.Datacenter
	}
	routed := make(map[string]bool, len(c.Routes))
	for _, r := range c.Routes {
		routed[r.Service] = true
	}
	e.options.Configured = true
	if c.Consul.Register != nil {
		e.options.Own = c.Consul.Register.Service
	}
	for name, s := range c.Services {
		if s.Consul != nil {
			e.options.Uses = append(e.options.Uses, doctor.Use{
				Name: name, Source: gateway.ServiceOptions(*s.Consul, c.Consul), Routed: routed[name],
			})
		}
	}
	if !e.askAdmin {
		e.address = c.Admin.Address
		if e.tokenFile == "" {
			e.tokenFile = c.Admin.TokenFile
		}
	}
	return nil
}

// askPeers asks a running sluice since when its peers are critical. If the
// command line does not name one, there need not be one.
func (e *examination) askPeers(ctx context.Context) error {
	peers, err := peersQuery{api: e.api, services: nil}.peers(ctx)
	if err != nil {
		if e.askAdmin {
			return err
		}
		return nil
	}
	e.options.PeersKnown = true
	for _, p := range peers {
		peer := doctor.Peer{Node: p.Node, ID: p.ID, Address: p.Address, Critical: p.Status == "critical", Since: p.Since}
		for _, reason := range p.Reasons {
			if why, ok := strings.CutPrefix(reason, balancer.ReasonAddress.String()+": "); ok {
				peer.Refused = why
			}
		}
		e.options.Peers = append(e.options.Peers, peer)
	}
	return nil
}

// fixAll deregisters the duplicates of a report, after it asked for each unless
// it need not. Done reports whether none failed.
func (e *examination) fixAll(ctx context.Context, d *doctor.Doctor, report *doctor.Report, in *bufio.Reader, out io.Writer) (done bool, err error) {
	done = true
	if !e.asJSON {
		fmt.Fprintln(out)
	}
	for _, f := range report.Findings {
		if f.Fix == nil {
			continue
		}
		fixed, goOn := e.fixOne(ctx, d, f, in, out)
		if !goOn {
			break
		}
		report.Fixed = append(report.Fixed, fixed)
		done = done && fixed.Result != doctor.ResultFailed
		if !e.asJSON {
			if _, err := fmt.Fprintf(out, "%s %s on node %s: %s\n", printable(f.Service), printable(f.ID), printable(f.Node), plain(fixed)); err != nil {
				return false, err
			}
		}
	}
	if len(report.Fixed) == 0 && !e.asJSON {
		_, err = fmt.Fprintln(out, "No duplicate was deregistered.")
	}
	return done, err
}

// fixOne deregisters one duplicate. GoOn is false if the operator wants to stop.
func (e *examination) fixOne(ctx context.Context, d *doctor.Doctor, f doctor.Finding, in *bufio.Reader, out io.Writer) (fixed doctor.Fixed, goOn bool) {
	if f.Fix.Possible && !e.yes && !e.dryRun {
		fmt.Fprintf(out, "Deregister %s %s on node %s, %s, through %s? %s on node %s stays. [y/n/q] ", printable(f.Service), printable(f.ID),
			printable(f.Node), printable(f.Address), printable(f.Fix.Agent), printable(f.Fix.KeepID), printable(f.Fix.KeepNode))
		switch answer(in) {
		case "n":
			return f.Outcome(doctor.ResultDeclined, "not wanted"), true
		case "q":
			return doctor.Fixed{}, false
		}
	}
	return d.Fix(ctx, f, e.dryRun), true
}

// answer reads y, n or q. Anything else is n, and the end of the input q.
func answer(in *bufio.Reader) string {
	line, err := in.ReadString('\n')
	switch word := strings.ToLower(strings.TrimSpace(line)); {
	case word == "y" || word == "yes":
		return "y"
	case word == "q" || word == "quit" || err != nil:
		return "q"
	}
	return "n"
}

// plain says what became of a duplicate.
func plain(f doctor.Fixed) string {
	switch f.Result {
	case doctor.ResultDone, doctor.ResultWould:
		return printableLong(f.Detail)
	case doctor.ResultDeclined:
		return "left as it is"
	case doctor.ResultLeft:
		return "left as it is: " + printableLong(f.Detail)
	}
	return "FAILED: " + printableLong(f.Detail)
}
