package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"sluice/admin"
	"sluice/balancer"
	"sluice/cli/terminal"
	"sluice/config"
	"sluice/consul"
	"sluice/discovery"
	"sluice/doctor"
	"sluice/gateway"
	"sluice/healthcheck"
	"sluice/observe/logs"
	"sluice/observe/panics"
	"sluice/tags/catalog"
)

// examination is one execution of the doctor command.
type examination struct {
	api           // of a running sluice
	askAdmin bool // --admin or SLUICE_ADMIN is set: sluice has to answer

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
		Short: "Find problems in Consul's catalog",
		Long: "Find problems in Consul's catalog: duplicate registrations, instances on dead\n" +
			"nodes, without a check, critical for long, with unusable addresses, and what ACLs\n" +
			"hide. With --config also services without passing instances, tags whose routes are\n" +
			"not used, and what hinders sluice in Consul's service mesh.\n\n" +
			"--fix deregisters duplicates through the agent that registered them. Nothing else\n" +
			"changes Consul. It prompts for each; --yes answers. Duplicates that may be different\n" +
			"processes, since their tags, meta or checks differ or their address is a container's,\n" +
			"also need --service. --keep chooses which of them stays.\n\n" +
			"The exit status is 0 without errors, 1 with an error or a duplicate that could not\n" +
			"be deregistered, and 2 if the catalog could not be examined.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e.askAdmin = cmd.Flags().Changed("admin") || os.Getenv("SLUICE_ADMIN") != ""
			ctx, stop := untilSignal(cmd)
			defer stop()
			if err := e.checkFlags(logs.IsTerminal(cmd.InOrStdin())); err != nil {
				return err
			}
			failed, err := e.run(ctx, cmd.InOrStdin(), cmd.OutOrStdout())
			switch {
			case err != nil:
				return &exitError{exitUnseen, err}
			case failed:
				return &exitError{exitFailed, nil}
			}
			return nil
		},
	}
	flags := command.Flags()
	flags.StringVarP(&e.in.File, "config", "c", "", "configuration `file` of sluice, for Consul's address and the services")
	flags.StringVar(&e.in.Consul, "consul", "", "`URL` of the Consul agent (default http://127.0.0.1:8500)")
	flags.StringVar(&e.options.Datacenter, "datacenter", "", "`name` of the data centre (default: the agent's)")
	flags.StringArrayVar(&e.options.Services, "service", nil, "examine only the Consul service with this `name`; may be repeated")
	flags.DurationVar(&e.options.CriticalFor, "critical-for", time.Hour, "report instances that are critical for longer than this")
	flags.BoolVar(&e.connect, "connect", false, "connect to each instance in service")
	flags.DurationVar(&e.connectTimeout, "connect-timeout", 2*time.Second, "timeout of each connection attempt")
	flags.StringArrayVar(&e.agentAddresses, "agent-address", nil, "URL of a node's agent, as `NODE=URL`; may be repeated")
	e.addFlags(command)
	flags.BoolVar(&e.asJSON, "json", false, "print the report as JSON")
	flags.BoolVar(&e.fix, "fix", false, "deregister duplicates through the agents that registered them, after a prompt for each")
	flags.BoolVarP(&e.yes, "yes", "y", false, "with --fix: no prompts; duplicates that may be different processes need --service too")
	flags.StringVar(&e.options.Keep, "keep", "", "of duplicates, keep the registration on the `node` with this name (default: the live one, of different ones the newest)")
	flags.BoolVar(&e.dryRun, "dry-run", false, "with --fix: show what it would do")
	return command
}

// checkFlags checks combinations of flags, and parses --agent-address. terminal: the
// operator can be prompted.
func (e *examination) checkFlags(terminal bool) error {
	asks := e.fix && !e.yes && !e.dryRun
	switch {
	case !e.fix && (e.yes || e.dryRun):
		return &usageError{errors.New("--yes and --dry-run are for --fix")}
	case asks && e.asJSON:
		return &usageError{errors.New("--fix --json cannot prompt: add --yes or --dry-run")}
	case asks && !terminal:
		return &usageError{errors.New("--fix prompts, and standard input is not a terminal: add --yes or --dry-run")}
	case e.options.CriticalFor < 0:
		return &usageError{fmt.Errorf("--critical-for %v: want 0 or more", e.options.CriticalFor)}
	case e.connectTimeout <= 0:
		return &usageError{fmt.Errorf("--connect-timeout %v: want more than 0", e.connectTimeout)}
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

// run examines the catalog, fixes duplicates if requested, and reports whether there
// are errors. err is set if the catalog could not be examined.
func (e *examination) run(ctx context.Context, in io.Reader, out io.Writer) (failed bool, err error) {
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
	failed = report.Count[doctor.SeverityError] > 0
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
		failed = failed || !done
	}
	if e.asJSON {
		err = writeJSON(out, report)
	}
	return failed, err
}

// configure takes Consul's address and the services from the configuration.
func (e *examination) configure() error {
	if e.in.File == "" {
		if e.in.Consul != "" {
			e.options.Consul = consul.Options{Addresses: []string{e.in.Consul}}
		}
		return nil
	}
	revision, err := e.in.Load()
	if err != nil {
		return err
	}
	c := catalog.BeforeFound(revision.Config)
	e.options.Consul = gateway.ClientOptions(c.Consul, zerolog.Nop())
	e.options.Datacenter = cmp.Or(e.options.Datacenter, c.Consul.Datacenter)
	routed := config.RoutedServices(c.Routes)
	e.options.Config = revision.Config
	e.options.MeshName = c.Consul.MeshName()
	streams := make(map[string]string) // listeners for TCP, by service
	for _, l := range c.Listeners {
		for _, r := range l.StreamRoutes() {
			streams[r.Service], routed[r.Service] = cmp.Or(l.Name, l.Address.Text), true
		}
	}
	if c.Consul.Register != nil {
		e.options.Own = c.Consul.Register.Service
	}
	for name, s := range c.Services {
		if s.Consul != nil {
			e.options.Uses = append(e.options.Uses, doctor.Use{
				Name: name, Source: gateway.ServiceOptions(*s.Consul, c.Consul), Routed: routed[name],
				Mesh: s.Consul.Connect && s.Consul.Peer == "", HTTP2: s.Upstream.UsesHTTP2(), Listener: streams[name],
			})
		}
	}
	if !e.askAdmin {
		e.address = c.Admin.Address.Text
		if c.Admin.TLS != nil {
			e.address = "https://" + e.address
		}
		e.tokenFile = cmp.Or(e.tokenFile, c.Admin.TokenFile)
	}
	return nil
}

// askPeers reads the peers of a running sluice. Without --admin it need not answer.
func (e *examination) askPeers(ctx context.Context) error {
	peers, err := peersOf(&e.api).get(ctx)
	if err != nil {
		if e.askAdmin {
			return err
		}
		return nil
	}
	e.options.Peers = make([]doctor.Peer, 0, len(peers)) // not nil
	for _, p := range peers {
		e.options.Peers = append(e.options.Peers, examined(p))
	}
	return nil
}

// examined returns what the doctor must know of a peer. How long it is critical is known only if
// nothing else takes it out of service: a drain or a failing active check may be older.
func examined(p admin.Peer) doctor.Peer {
	peer := doctor.Peer{Node: p.Node, ID: p.ID, Address: p.Address, Since: p.Since}
	peer.Critical = p.State == balancer.StateUnhealthy.String()
	for _, reason := range p.Reasons {
		if why, ok := strings.CutPrefix(reason, balancer.ReasonAddress.String()+": "); ok {
			peer.Refused = why
		}
		if _, who, ok := strings.Cut(reason, healthcheck.OtherService); ok {
			peer.Other = who
		}
		peer.Critical = peer.Critical && strings.HasPrefix(reason, balancer.ReasonRegistry.String()+": "+discovery.StatusCritical.String())
	}
	return peer
}

// fixAll deregisters the duplicates of a report. done: none failed.
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
			if _, err := fmt.Fprintf(out, "%s %s on node %s: %s\n", printable(f.Service), printable(f.ID), printable(f.Node), resultText(fixed)); err != nil {
				return false, err
			}
		}
	}
	if len(report.Fixed) == 0 && !e.asJSON {
		_, err = fmt.Fprintln(out, "No duplicate was deregistered.")
	}
	return done, err
}

// fixOne deregisters one duplicate, after a prompt unless --yes. What only the operator can
// know needs the prompt, or --yes for the services that --service names: so a script changes
// no service that its author did not think of. goOn is false after "q".
func (e *examination) fixOne(ctx context.Context, d *doctor.Doctor, f doctor.Finding, in *bufio.Reader, out io.Writer) (fixed doctor.Fixed, goOn bool) {
	if f.Fix.Confirm && e.yes && !slices.Contains(e.options.Services, f.Service) {
		return f.Outcome(doctor.ResultLeft, f.Fix.WhyNot+"; to confirm that it is the same process, name its service: --service "+f.Service), true
	}
	if (f.Fix.Possible || f.Fix.Confirm) && !e.yes && !e.dryRun {
		if f.Fix.Confirm {
			fmt.Fprintf(out, "%s %s on node %s may be another process than %s on node %s: %s.\n", printable(f.Service), printable(f.ID),
				printable(f.Node), printable(f.Fix.KeepID), printable(f.Fix.KeepNode), terminal.PrintableLong(f.Fix.WhyNot))
		}
		fmt.Fprintf(out, "Deregister %s %s on node %s, %s, through %s? %s on node %s stays. [y/n/q] ", printable(f.Service), printable(f.ID),
			printable(f.Node), printable(f.Address), printable(f.Fix.Agent), printable(f.Fix.KeepID), printable(f.Fix.KeepNode))
		switch readAnswer(ctx, in) {
		case "n":
			return f.Outcome(doctor.ResultDeclined, "declined"), true
		case "q":
			return doctor.Fixed{}, false
		}
	}
	return d.Fix(ctx, f, doctor.FixOptions{DryRun: e.dryRun, Confirmed: true}), true
}

// readAnswer reads y, n or q. Anything else is n, the end of the input or of ctx q.
func readAnswer(ctx context.Context, in *bufio.Reader) string {
	answer := make(chan string, 1)
	go func() { // until a line comes, or this process ends
		defer panics.Contain(panics.Task, func() { answer <- "q" })
		line, err := in.ReadString('\n')
		switch word := strings.ToLower(strings.TrimSpace(line)); {
		case word == "y" || word == "yes":
			answer <- "y"
		case word == "q" || word == "quit" || err != nil:
			answer <- "q"
		default:
			answer <- "n"
		}
	}()
	select {
	case word := <-answer:
		return word
	case <-ctx.Done():
		return "q"
	}
}

// resultText describes the result for a duplicate.
func resultText(f doctor.Fixed) string {
	switch f.Result {
	case doctor.ResultDone, doctor.ResultWould:
		return terminal.PrintableLong(f.Detail)
	case doctor.ResultDeclined:
		return "not changed"
	case doctor.ResultLeft:
		return "not changed: " + terminal.PrintableLong(f.Detail)
	}
	return "FAILED: " + terminal.PrintableLong(f.Detail)
}
