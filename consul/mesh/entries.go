package mesh

import (
	"context"
	"sync"
	"time"

	"sluice/consul"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// Kinds of config entries, of which Consul compiles chains, and that are intentions.
var (
	kindsOfChains     = []string{"service-router", "service-splitter", "service-resolver", "service-defaults", "proxy-defaults"}
	kindsOfIntentions = []string{"service-intentions"}
)

// entries tells watches that a config entry has changed, while the loops are oversubscribed.
// Then one blocking query for each kind replaces one for each service: after each change, every
// watch asks without blocking. entries reads no entry, so a token needs no right to read one.
type entries struct {
	consul  *consul.Client
	wait    func() time.Duration // of its queries
	kinds   []string
	watch   running
	changed wake.All
}

func newEntries(client *consul.Client, wait func() time.Duration, kinds []string) *entries {
	return &entries{consul: client, wait: wait, kinds: kinds}
}

// begin lets it run from now on.
func (e *entries) begin() {
	if e.watch.stop == nil {
		e.watch.stop = panics.Start(context.Background(), panics.Watch, e.run)
	}
}

// running is a watch that begins and ends. The mutex of its owner guards it.
type running struct {
	stop func() // ends the watch, and waits for that; nil: it does not run
}

// end returns what ends the watch: nothing, if it does not run.
func (r *running) end() (stops []func()) {
	if r.stop != nil {
		stops, r.stop = append(stops, r.stop), nil
	}
	return stops
}

func (e *entries) run(ctx context.Context) {
	for ctx.Err() == nil {
		oversubscribed, lasting, end := e.consul.Oversubscribed(ctx)
		if oversubscribed {
			e.follow(lasting)
		}
		<-lasting.Done()
		end()
	}
}

// follow tells of changes until ctx ends. Each first answer counts as a change: there may have been
// one before. So does a failure, which the watches then find too.
func (e *entries) follow(ctx context.Context) {
	var running sync.WaitGroup
	for _, kind := range e.kinds {
		running.Go(func() {
			panics.Repeat(ctx.Done(), panics.Watch, time.Second, func() {
				_ = e.consul.Follow(ctx, consul.FollowOptions{ // ends with ctx
					Query: consul.Query{Path: "config/" + kind}, Wait: e.wait(), ExcludeFromCapacity: true,
					Read: func(consul.Answer, []byte) error {
						e.changed.Send()
						return nil
					},
					Ended: func(err error) {
						if err != nil {
							e.changed.Send()
						}
					},
				})
			})
		})
	}
	running.Wait()
}

// await returns the Await of one watch, whose first query comes later.
func (e *entries) await() func(context.Context) {
	next := e.changed.Wait()
	return func(ctx context.Context) {
		select {
		case <-next:
			next = e.changed.Wait()
		case <-ctx.Done():
		}
	}
}
