package gateway

import (
	"cmp"
	"time"

	"github.com/rs/zerolog"

	"sluice/admin"
	"sluice/balancer"
	"sluice/config"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/operator"
	"sluice/release"
)

// newOrders returns the store of operators' orders about peers.
func (g *Gateway) newOrders(c *config.Config) *operator.Peers {
	return operator.New(operator.Options{
		Path:   c.Admin.Orders,
		Consul: g.consul, Prefix: c.Consul.OrdersPrefix(), Wait: g.consulWait,
		Own: g.owner.Do, Replica: g.replicaName,
		Changed: func() {
			for _, service := range g.services.all() {
				g.applyOrders(service)
			}
		},
		Events: g.events, Log: g.log,
	})
}

// newRelease returns the given shares, without any, and the judge.
func (g *Gateway) newRelease(c *config.Config) (*release.Shares, *release.Judge) {
	shares := release.NewShares(release.Options{
		Path:   c.Admin.Shares,
		Consul: g.consul, Prefix: c.Consul.Shares, Wait: g.consulWait,
		Own: g.owner.Do, Replica: g.replicaName,
		Settled: func() bool { return closed(g.documents.Settled()) && closed(g.finder.Used()) },
		Changed: g.documents.Again,
		Events:  g.events, Log: g.log,
	})
	return shares, release.NewJudge(release.JudgeOptions{
		Shares: shares, Config: g.effective.Load, Pool: g.services.pool, Events: g.events, Log: g.log,
	})
}

// applyOrders makes the pool of a service obey the orders that stand.
func (g *Gateway) applyOrders(s *service) {
	s.pool.SetOrders(func(i discovery.Instance) balancer.Orders { return g.orders.Set().For(i) })
}

// byOperator is what an operator has ordered about this process. A new process takes it over
// (SIGUSR2), a restart ends it.
type byOperator struct {
	NotReady *notReady `json:"not_ready,omitempty"` // nil: readiness is up to the process
	LogLevel *logLevel `json:"log_level,omitempty"` // nil: that of the configuration
}

type notReady struct {
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
}

// logLevel is used as long as the configuration has the level that it replaces.
type logLevel struct {
	Level    string    `json:"level"`
	Replaces string    `json:"replaces"`
	By       string    `json:"by"`
	Since    time.Time `json:"since"`
}

// ordered returns what operators have ordered about this process.
func (g *Gateway) ordered() byOperator {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.byOperator
}

func (g *Gateway) setOrdered(f func(*byOperator)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(&g.byOperator)
}

// turnReady makes this process not ready, or ends that.
func (g *Gateway) turnReady(off bool, why, by string) error {
	return g.owner.order(func() error {
		g.changeReady(off, why, by)
		return nil
	})
}

func (g *Gateway) changeReady(off bool, why, by string) {
	was := g.ordered().NotReady != nil
	text, kind := "An operator has made sluice ready again", events.KindReady
	var order *notReady
	if off {
		text, kind = "An operator has made sluice not ready, and requests are still served"+events.Because(why), events.KindNotReady
		order = &notReady{Why: why, Since: time.Now().UTC().Truncate(time.Millisecond)}
	} else if !was {
		return
	}
	g.setOrdered(func(o *byOperator) { o.NotReady = order })
	if by != "" {
		text += " (by " + by + ")"
	}
	g.log.Info().Msg(text)
	g.events.Add(events.Event{Kind: kind, Text: text})
}

// logLevel returns the level of the log.
func (g *Gateway) logLevel() admin.LogLevel {
	configured := g.effective.Load().Log.Level.Text
	l := admin.LogLevel{Level: configured, Configured: configured}
	if o := g.ordered().LogLevel; o != nil {
		l.Level, l.By, l.Since = o.Level, o.By, o.Since
	}
	return l
}

// setLogLevel replaces the level of the configuration; "": no longer.
func (g *Gateway) setLogLevel(level, by string) error {
	return g.owner.order(func() error {
		g.changeLogLevel(level, by)
		return nil
	})
}

func (g *Gateway) changeLogLevel(level, by string) {
	c := g.effective.Load().Log
	var order *logLevel
	if level != "" {
		order = &logLevel{Level: level, Replaces: c.Level.Text, By: by, Since: time.Now().UTC().Truncate(time.Millisecond)}
	}
	g.setOrdered(func(o *byOperator) { o.LogLevel = order })
	text := "The level of the log is " + cmp.Or(level, c.Level.Text)
	if level == "" {
		text += ", that of the configuration"
	}
	if by != "" {
		text += " (by " + by + ")"
	}
	g.useLog(c)
	g.log.WithLevel(zerolog.NoLevel).Msg(text) // whatever the level is
	g.events.Add(events.Event{Kind: events.KindLogLevel, Text: text})
}

// useLog applies the settings of the log, and the level that an operator has set. Who changes the
// level in the configuration has the last word.
func (g *Gateway) useLog(c config.Log) {
	g.setOrdered(func(o *byOperator) {
		if o.LogLevel != nil && o.LogLevel.Replaces != c.Level.Text {
			o.LogLevel = nil
		}
		if o.LogLevel != nil {
			if ordered, err := zerolog.ParseLevel(o.LogLevel.Level); err == nil {
				c.Level.Value = ordered
			}
		}
	})
	g.logs.Set(logFormat(c))
}

// logFormat returns the level of c, and whether its format is the one for people.
func logFormat(c config.Log) (level zerolog.Level, console bool) {
	return c.Level.Value, c.Format == "console"
}
