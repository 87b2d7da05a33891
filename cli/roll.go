package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"sluice/admin"
	"sluice/cli/roll"
	"sluice/consul"
)

// deployment is one execution of the roll command.
type deployment struct {
	api
	options roll.Options
	consul  string // URL of the agent; "": as Consul's tools
	prefix  string // of keys in Consul

	resume, restart, dryRun, asJSON bool
}

func newRoll() *cobra.Command {
	d := new(deployment)
	command := &cobra.Command{
		Use:   "roll --service SERVICE [flags] -- COMMAND [ARGUMENT…]",
		Short: "Run a command, such as a deployment, for each instance of a service, without a lost request",
		Long: "Run a command for each instance of a service in Consul, a few at a time. Each is\n" +
			"drained, also in other replicas, until nothing is in flight; then the command runs.\n" +
			"When Consul has the instance passing again, for as long as its checks need to notice\n" +
			"a failure, it gets requests. The next one follows when it has neither failed more\n" +
			"than the others, nor was slower, for the time of --judge.\n\n" +
			"The first instance for which this is not so ends the roll. Its drain ends, unless it\n" +
			"was in use and worse than the others. Ctrl-C ends the roll after the present command;\n" +
			"a second one ends that too. --resume goes on later.\n\n" +
			"In COMMAND, {id}, {service}, {node}, {datacenter}, {address}, {host} and {port} are\n" +
			"those of the instance. Only one roll of a service runs at a time: a lock in Consul's\n" +
			"KV store keeps others away. The exit status is 0 if all instances are done.",
		Example: "  sluice roll --service star -- ssh {node} systemctl restart star\n" +
			"  sluice roll --service star --by zone --parallel 2 -- deploy {id} --version v2\n" +
			"  sluice roll --service star --dry-run -- deploy {id}",
		RunE: func(cmd *cobra.Command, args []string) error {
			d.options.Command = args
			if err := d.check(); err != nil {
				return err
			}
			return d.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	o, flags := &d.options, command.Flags()
	flags.SetInterspersed(false) // the command's flags are not these
	flags.StringVar(&o.Service, "service", "", "`name` of the service in sluice")
	flags.IntVar(&o.Parallel, "parallel", 0, "`number` of instances at a time (default 1, with --by all that have the same)")
	flags.StringVar(&o.Group, "by", "", "roll only instances with the same `value` at a time: node, datacenter, or a key of meta, such as zone")
	flags.DurationVar(&o.DrainTimeout, "drain-timeout", time.Minute, "`time` for requests in flight")
	flags.DurationVar(&o.CommandTimeout, "command-timeout", 10*time.Minute, "`time` for the command of an instance")
	flags.DurationVar(&o.ReturnTimeout, "return-timeout", 5*time.Minute, "`time` after the command until the instance is as good as the others")
	flags.DurationVar(&o.Settle, "settle", 0, "`time` that the instance has to be passing (default: an interval and a timeout of its checks)")
	flags.DurationVar(&o.Judge, "judge", 10*time.Second, "`time` that the instance has to be as good as the others; 0: as soon as it gets requests")
	flags.Float64Var(&o.Slower, "slower", 0.5, "how much slower than the slowest other the instance may be: 0.5 is half as long again")
	flags.BoolVar(&o.Force, "force", false, "roll also what leaves the service without an instance that gets requests")
	flags.BoolVar(&d.resume, "resume", false, "go on with a roll that has stopped: instances that are done are skipped")
	flags.BoolVar(&d.restart, "restart", false, "begin anew after a roll that has stopped")
	flags.BoolVar(&d.dryRun, "dry-run", false, "show which instances would be rolled, in which order")
	flags.BoolVar(&d.asJSON, "json", false, "print a JSON object for each step, and the command's output on standard error")
	flags.StringVar(&d.consul, "consul", "", "`URL` of the Consul agent (default $CONSUL_HTTP_ADDR or http://127.0.0.1:8500)")
	flags.StringVar(&d.prefix, "prefix", "sluice-rolls", "`prefix` of the keys of rolls in Consul's KV store")
	d.addFlags(command)
	return command
}

// check checks the flags.
func (d *deployment) check() error {
	var wrong []error
	refuse := func(is bool, text string) {
		if is {
			wrong = append(wrong, errors.New(text))
		}
	}
	o := d.options
	refuse(o.Service == "", "--service is missing")
	refuse(len(o.Command) == 0, `the command is missing: put it at the end, after "--"`)
	refuse(o.Parallel < 0, "--parallel: want 1 or more")
	refuse(o.DrainTimeout <= 0 || o.CommandTimeout <= 0 || o.ReturnTimeout <= 0, "--drain-timeout, --command-timeout and --return-timeout: want more than 0")
	refuse(o.Settle < 0 || o.Judge < 0 || o.Slower < 0, "--settle, --judge and --slower: want 0 or more")
	refuse(d.resume && d.restart, "--resume and --restart exclude each other")
	refuse(d.prefix == "" || strings.HasPrefix(d.prefix, "/") || strings.HasSuffix(d.prefix, "/"), "--prefix: want a text without a slash at its ends")
	if len(wrong) > 0 {
		return &usageError{errors.Join(wrong...)}
	}
	return nil
}

// run rolls the service, or shows how.
func (d *deployment) run(ctx context.Context, out, errs io.Writer) error {
	ctx, stop, done := untilSecondSignal(ctx, errs)
	defer done()
	options := consul.Options{Log: zerolog.Nop()}
	if d.consul != "" {
		options.Addresses = []string{d.consul}
	}
	client, err := consul.New(options)
	if err != nil {
		return &usageError{err}
	}
	defer client.Close()
	defer client.KeepProbing()()
	store, s := roll.Store{Consul: client, Prefix: d.prefix}, &rolled{api: d.api, service: d.options.Service}
	d.options.By = userAtHost()
	d.options.Report = func(e roll.Event) { d.write(out, e) }
	d.options.CheckTime = func(ctx context.Context, p admin.Peer) (time.Duration, error) {
		return roll.CheckTime(ctx, client, s.nameInConsul(), p)
	}
	d.options.Run = func(ctx context.Context, command []string) error {
		if d.asJSON {
			return runCommand(ctx, command, errs, errs)
		}
		return runCommand(ctx, command, out, errs)
	}
	if d.dryRun {
		_, _, err := d.plan(ctx, s, store)
		return err
	}
	lock, err := store.Lock(ctx, d.options.Service)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
		defer cancel()
		_ = lock.Unlock(ctx) // else it ends by its TTL
	}()
	ctx, release := endWith(ctx, lock.Held)
	defer release()
	return d.roll(ctx, stop, s, store)
}

// roll rolls the service, whose lock this process has, and keeps the record.
func (d *deployment) roll(ctx, stop context.Context, s *rolled, store roll.Store) error {
	plan, record, err := d.plan(ctx, s, store)
	if err != nil {
		return err
	}
	service := d.options.Service
	d.options.Save = func(ctx context.Context, p roll.Progress) error {
		record.Progress = p
		return store.Write(ctx, service, record)
	}
	err = roll.Run(ctx, stop, s, d.options, plan)
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	if err == nil {
		return store.Forget(ending, service)
	}
	record.Stopped = err.Error()
	return errors.Join(err, store.Write(ending, service, record), errors.New("--resume goes on after this"))
}

// plan returns what is to be done, and shows it.
func (d *deployment) plan(ctx context.Context, s *rolled, store roll.Store) (roll.Plan, roll.Record, error) {
	record, err := store.Read(ctx, d.options.Service)
	if err != nil {
		return roll.Plan{}, roll.Record{}, err
	}
	progress, err := roll.Continue(record, d.options.Command, d.resume, d.restart)
	if err != nil {
		return roll.Plan{}, roll.Record{}, err
	}
	if err := s.checkReplicas(ctx); err != nil {
		return roll.Plan{}, roll.Record{}, err
	}
	peers, err := s.Peers(ctx)
	if err != nil {
		return roll.Plan{}, roll.Record{}, err
	}
	plan, err := roll.NewPlan(d.options, peers, progress)
	if err != nil {
		return roll.Plan{}, roll.Record{}, err
	}
	for n, batch := range plan.Batches {
		for _, p := range batch {
			i := roll.InstanceOf(p)
			d.options.Report(roll.Event{Time: time.Now(), Step: roll.Planned, Instance: &i, Text: fmt.Sprintf("batch %d of %d", n+1, len(plan.Batches))})
		}
	}
	return plan, roll.Record{Command: d.options.Command, By: d.options.By, Begun: time.Now(), Progress: progress}, nil
}

// write writes a step for people, or as JSON.
func (d *deployment) write(out io.Writer, e roll.Event) {
	if d.asJSON {
		_ = json.NewEncoder(out).Encode(e) // nobody may read it; the roll goes on
		return
	}
	about := printable(d.options.Service)
	if e.Instance != nil {
		about += "/" + printable(e.Instance.String())
	}
	fmt.Fprintf(out, "%s  %s  %s: %s\n", e.Time.Format(time.TimeOnly), about, e.Step, printableWhy(e.Text))
}
