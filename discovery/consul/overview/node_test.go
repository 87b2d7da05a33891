package overview

import (
	"context"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/observe/panics"
	"sluice/test/verify"
)

// subscribed calls test in a bubble of synctest with an overview of a Consul that does not answer.
func subscribed(t *testing.T, test func(t *testing.T, v *overview)) {
	synctest.Test(t, func(t *testing.T) {
		client, err := consul.New(consul.Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		verify.NoError(t, err)
		defer client.Close()
		s := New(client, zerolog.Nop()).Subscribe(Scope{}, "star", time.Minute)
		defer s.Leave()
		test(t, s.overview)
	})
}

// A panic of what follows the nodes is noticed at once, and the nodes are followed again.
func TestPanicOfAnOverview(t *testing.T) {
	panics.Fatal.Store(false)
	defer panics.Fatal.Store(true)
	defer panics.Observe(func(panics.Contained) {})()
	subscribed(t, func(t *testing.T, v *overview) {
		v.mu.Lock()
		v.nodes["bad"] = nil
		v.mu.Unlock()
		before := panics.Total(panics.Watch)
		v.poke.Send()
		synctest.Wait()
		verify.Equal(t, panics.Total(panics.Watch)-before, 1, "panics")
		v.mu.Lock()
		clear(v.nodes)
		v.addresses = addresses{"good": "10.0.0.1"}
		v.mu.Unlock()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		v.mu.Lock()
		defer v.mu.Unlock()
		verify.That(t, v.nodes["good"] != nil, "the nodes %v", v.nodes)
	})
}

func TestNodesThatComeGetTheSlotsOfThoseThatLeave(t *testing.T) {
	subscribed(t, func(t *testing.T, v *overview) {
		for _, name := range []string{"a", "b", "c"} {
			nodes := make(addresses)
			for n := range 200 {
				nodes[fmt.Sprint(name, n)] = "10.0.0.1"
			}
			v.useAddresses(nodes)
			v.poke.Send()
			synctest.Wait()
			slots := 0
			for _, n := range v.nodes {
				if n.slot {
					slots++
				}
			}
			verify.Equal(t, slots, v.slotsLocked(), "nodes %s… with a slot", name)
		}
	})
}
