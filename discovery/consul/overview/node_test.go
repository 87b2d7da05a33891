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
	"sluice/test/verify"
)

func TestNodesThatComeGetTheSlotsOfThoseThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, err := consul.New(consul.Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		verify.NoError(t, err)
		defer client.Close()
		s := New(client, zerolog.Nop()).Subscribe(Scope{}, "star", time.Minute)
		defer s.Leave()
		v := s.overview
		for _, name := range []string{"a", "b", "c"} {
			nodes := make(addresses)
			for n := range 100 {
				nodes[fmt.Sprint(name, n)] = "10.0.0.1"
			}
			v.useAddresses(nodes)
			wakeUp(v.poke)
			synctest.Wait()
			slots := 0
			for _, n := range v.nodes {
				if n.slot {
					slots++
				}
			}
			verify.Equal(t, slots, v.slots(), "nodes %s… with a slot", name)
		}
	})
}
