package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"sluice/consul"
	"sluice/consul/app"
	"sluice/discovery/locality"
	"sluice/observe/logs"
	"sluice/observe/panics"
)

// registering is one execution of the register command.
type registering struct {
	options     app.Options
	stopTimeout time.Duration
	log         zerolog.Logger

	// Flags that options have in another form.
	http            string
	tcp, grpc       bool
	meta            []string
	deregisterAfter time.Duration
	consul          string
	logFormat       string
	passToken       bool
}

func newRegister() *cobra.Command {
	r := new(registering)
	command := &cobra.Command{
		Use:   "register --name NAME --port PORT [flags] -- COMMAND [ARGUMENT…]",
		Short: "Run an app and keep it registered in Consul",
		Long: "Run an app in any language, and register it in Consul when it passes its check.\n" +
			"It is registered again if Consul loses it, and deregistered when it ends. Consul\n" +
			"may be away, also at the start: the app runs.\n\n" +
			"After SIGTERM, SIGINT or SIGQUIT sluice deregisters the app, waits for the drain,\n" +
			"and passes the signal on; SIGKILL follows after the stop timeout. A second signal\n" +
			"ends the drain, a third one kills. Other signals are passed on at once.\n\n" +
			"The exit status is the app's, or 128 and the number of the signal that\n" +
			"ended it; 1 if its port is in use, or if it did not pass its check in time; 126 or\n" +
			"127 if it cannot be started. docs/register.md tells more.",
		Example: "  sluice register --name star --port 5000 --http /health -- gunicorn -b :5000 app:app\n" +
			"  sluice register --name greeter --port 50051 --grpc -- ./greeter\n" +
			"  sluice register --name worker --port 7000 --ttl --tag v2 --meta zone=a -- ./worker",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.translate(args, cmd.ErrOrStderr()); err != nil {
				return err
			}
			return r.run(cmd.Context(), args, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	o, flags := &r.options, command.Flags()
	flags.SetInterspersed(false) // the app's flags are not these
	flags.SortFlags = false
	flags.StringVar(&o.Name, "name", "", "`name` of the service")
	flags.IntVar(&o.Port, "port", 0, "`port` that the app listens on")
	flags.StringVar(&o.Address, "address", "", "`address` for clients (default: what the agent advertises; with an agent\non another machine, the local address of the connection to it)")
	flags.StringVar(&o.ID, "id", "", "`id` of the instance (default NAME-ADDRESS-PORT, without an address NAME-HOST-PORT)")
	flags.StringArrayVar(&o.Tags, "tag", nil, "`tag` of the instance; may be repeated")
	flags.StringArrayVar(&r.meta, "meta", nil, "meta of the instance, as `KEY=VALUE`; may be repeated")
	flags.IntVar(&o.Weight, "weight", 1, "`weight` of the instance, up to 65535")
	flags.StringVar(&r.http, "http", "", "check: a GET of this `path` is answered with a status from 200 to 299")
	flags.BoolVar(&r.tcp, "tcp", false, "check: the port accepts connections (the default)")
	flags.BoolVar(&r.grpc, "grpc", false, "check: grpc.health.v1 answers SERVING")
	flags.StringVar(&o.Check.Service, "grpc-service", "", "`service` that --grpc asks for (default: the whole server)")
	flags.BoolVar(&o.Check.TLS, "tls", false, "--http and --grpc use TLS, with any certificate")
	flags.BoolVar(&o.Check.TTL, "ttl", false, "sluice checks and reports to the agent, which need not reach the app;\nalone: the app is well while it lives")
	flags.DurationVar(&o.Check.Interval, "interval", 0, "`time` between checks (default 2s, with --ttl 10s)")
	flags.DurationVar(&o.Check.Timeout, "timeout", app.DefaultTimeout, "`time` for a check")
	flags.DurationVar(&r.deregisterAfter, "deregister-after", app.DefaultDeregisterAfter, "Consul deregisters the app after this `time` with a critical check, at least 1m; 0: never")
	flags.DurationVar(&o.StartTimeout, "start-timeout", time.Minute, "`time` until the check passes, else the app is stopped; 0: for ever")
	flags.DurationVar(&o.Drain, "drain", 5*time.Second, "`time` between the deregistration and the signal to the app")
	flags.DurationVar(&r.stopTimeout, "stop-timeout", 20*time.Second, "`time` between the signal and SIGKILL")
	flags.StringVar(&r.consul, "consul", "", "`URL` of the Consul agent (default $CONSUL_HTTP_ADDR or http://127.0.0.1:8500); CONSUL_HTTP_TOKEN\nand the other variables of Consul's tools count too")
	flags.BoolVar(&r.passToken, "pass-token", false, "leave CONSUL_HTTP_TOKEN, CONSUL_HTTP_TOKEN_FILE and CONSUL_HTTP_AUTH in the environment of the app")
	flags.StringVar(&r.logFormat, "log", "auto", "`format` of sluice's own lines on standard error: console, json, off, or auto,\nwhich is console on a terminal and json elsewhere")
	return command
}

// translate sets the options from the other flags.
func (r *registering) translate(command []string, log io.Writer) error {
	o := &r.options
	var wrong []error
	if o.Name == "" {
		wrong = append(wrong, errors.New("--name is missing"))
	}
	if o.Port == 0 {
		wrong = append(wrong, errors.New("--port is missing"))
	}
	if len(command) == 0 {
		wrong = append(wrong, errors.New(`the command of the app is missing: put it at the end, after "--"`))
	}
	var checks []string
	if r.http != "" {
		checks, o.Check.Type, o.Check.Path = append(checks, "--http"), app.HTTP, r.http
	}
	if r.tcp {
		checks, o.Check.Type = append(checks, "--tcp"), app.TCP
	}
	if r.grpc {
		checks, o.Check.Type = append(checks, "--grpc"), app.GRPC
	}
	if len(checks) > 1 {
		wrong = append(wrong, fmt.Errorf("%s: want one of them", strings.Join(checks, " and ")))
	}
	if o.Check.Service != "" && !r.grpc {
		wrong = append(wrong, errors.New("--grpc-service is for --grpc"))
	}
	for _, entry := range r.meta {
		key, value, ok := strings.Cut(entry, "=")
		if _, twice := o.Meta[key]; !ok || twice {
			wrong = append(wrong, fmt.Errorf("--meta %q: want KEY=VALUE, each key once", entry))
			continue
		}
		if o.Meta == nil {
			o.Meta = make(map[string]string)
		}
		o.Meta[key] = value
	}
	if o.DeregisterAfter = r.deregisterAfter; r.deregisterAfter == 0 {
		o.DeregisterAfter = -1
	}
	if r.deregisterAfter < 0 || r.stopTimeout < 0 {
		wrong = append(wrong, errors.New("--deregister-after and --stop-timeout: want 0 or more"))
	}
	if r.consul != "" {
		o.Consul = consul.Options{Addresses: []string{r.consul}}
	}
	switch r.logFormat {
	case "auto", "console", "json":
	case "off":
		log = io.Discard
	default:
		wrong = append(wrong, fmt.Errorf("--log %q: want auto, console, json or off", r.logFormat))
	}
	if len(wrong) > 0 {
		return &usageError{errors.Join(wrong...)}
	}
	r.log = logs.New(log, zerolog.InfoLevel, r.logFormat).Logger()
	o.Log = r.log
	return nil
}

// run runs the app until it has ended. The error has its exit status.
func (r *registering) run(ctx context.Context, command []string, in io.Reader, out, errors io.Writer) error {
	if err := hideProcess(); err != nil {
		r.log.Warn().Err(err).Msg("the app may be able to read Consul's token from the memory of sluice")
	}
	registration, err := app.New(r.options)
	if err != nil {
		return &usageError{err}
	}
	if err := r.checkPort(registration.CheckedAddress()); err != nil {
		return err
	}
	// From before the start of the app until the end of this process: no signal is lost, and
	// none changes the exit status, which is the app's.
	signals := make(chan os.Signal, 32)
	notify(signals)
	outliveReaders()
	program, err := startChild(command, r.environment(), in, out, errors)
	if err != nil {
		signal.Stop(signals)
		return &exitError{startFailure(err), fmt.Errorf("the app cannot be started: %w", err)}
	}
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	left := make(chan error, 1)
	go func() {
		err := panics.Err
		defer func() { left <- err }()
		defer panics.Contain(panics.Task, nil)
		err = registration.Run(ctx)
	}()
	s := &supervision{registering: r, registration: registration, program: program, leave: leave, left: left}
	return s.run(signals)
}

// consulCredentials are the variables of Consul's tools that let who has them act as sluice does.
var consulCredentials = []string{"CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE", "CONSUL_HTTP_AUTH"}

// environment returns the environment of the app: the app needs no right to register itself.
func (r *registering) environment() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return !r.passToken && slices.Contains(consulCredentials, name)
	})
}

// checkPort refuses a port at which another process listens: that one would pass the check of
// the app, and the end of the app would deregister it.
func (r *registering) checkPort(address string) error {
	if r.options.Check.TTL && r.options.Check.Type == "" {
		return nil
	}
	dialer := locality.NewDialer(locality.ByOperator, 5*time.Second)
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return nil
	}
	defer conn.Close()
	if conn.LocalAddr().String() == conn.RemoteAddr().String() { // it has met itself
		return nil
	}
	return fmt.Errorf("another process listens at %s already: want a free port", address)
}

// notify delivers the signals that the command handles, except signals that its parent ignores
// for it, as nohup does.
func notify(signals chan<- os.Signal) {
	for _, s := range []syscall.Signal{
		syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGCHLD,
		syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGTTIN, syscall.SIGTTOU,
	} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
}
