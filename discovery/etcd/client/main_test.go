package client

import (
	"testing"

	"go.uber.org/goleak"

	"sluice/test/parallel"
)

func TestMain(m *testing.M) {
	parallel.SetDefault(8)
	goleak.VerifyTestMain(m)
}
