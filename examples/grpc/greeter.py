r"""A gRPC service that registers itself in Consul, with a health check by grpc.health.v1.

    apt-get install python3-grpcio python3-protobuf
    python3 examples/grpc/greeter.py 9001
    python3 examples/grpc/greeter.py 9002
    sluice run --config examples/grpc/sluice.yaml

After SIGTERM it deregisters, goes on for a second (or for as many as its second
argument says, or until another SIGTERM), and finishes its calls.

Nothing in here knows about sluice. Consul is expected on 127.0.0.1:8500, or
where the environment variable CONSUL_HTTP_ADDR ("host:port") says.

The modules *_pb2.py and *_pb2_grpc.py are generated, in this directory:

    apt-get install protobuf-compiler protobuf-compiler-grpc
    protoc -I. --python_out=. --grpc_python_out=. \
        --plugin=protoc-gen-grpc_python="$(command -v grpc_python_plugin)" \
        helloworld.proto grpc_health/v1/health.proto
"""

import json
import os
import select
import signal
import sys
import urllib.request
from concurrent import futures

import grpc

import helloworld_pb2
import helloworld_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

ADDRESS = '127.0.0.1'
SERVICE = 'helloworld.Greeter'

# How long calls may take to finish, in seconds.
GRACE = 10


class Greeter(helloworld_pb2_grpc.GreeterServicer):

    def __init__(self, name):
        self.name = name

    def SayHello(self, request, context):
        return self.reply(request)

    def SayHelloStreamReply(self, request, context):
        for _ in range(5):
            yield self.reply(request)

    def reply(self, request):
        return helloworld_pb2.HelloReply(message='Hello %s from %s' % (request.name, self.name))


class Health(health_pb2_grpc.HealthServicer):
    """Answers Consul's check, as the package grpcio-health-checking does, which
    Debian does not have. The service is healthy as long as it answers."""

    def Check(self, request, context):
        if request.service not in ('', SERVICE):
            context.abort(grpc.StatusCode.NOT_FOUND, 'unknown service')
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


def consul(path, body=None):
    """Sends a PUT to the API of Consul's agent."""
    address = os.environ.get('CONSUL_HTTP_ADDR', '127.0.0.1:8500')
    urllib.request.urlopen(urllib.request.Request(
        'http://%s/v1/agent/service/%s' % (address, path), method='PUT',
        data=json.dumps(body).encode() if body else None)).close()


def main():
    port = int(sys.argv[1])
    # How long the service goes on after it has deregistered, until load
    # balancers see the change.
    goodbye = float(sys.argv[2]) if len(sys.argv) > 2 else 1
    name = 'greeter-%d' % port

    # A signal writes a byte. A wait for the byte cannot miss a signal that comes
    # just before it begins; a wait that a signal has to interrupt can.
    signals, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=10))
    helloworld_pb2_grpc.add_GreeterServicer_to_server(Greeter(name), server)
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    server.add_insecure_port('%s:%d' % (ADDRESS, port))
    server.start()

    consul('register', {
        'ID': name,
        'Name': 'greeter',
        'Address': ADDRESS,
        'Port': port,
        'Check': {
            'GRPC': '%s:%d/%s' % (ADDRESS, port, SERVICE),
            'Interval': '1s',
            'Timeout': '5s',
            'DeregisterCriticalServiceAfter': '1m',
        },
    })
    print(name, 'serves and is registered', flush=True)

    os.read(signals, 1)
    try:
        consul('deregister/' + name)
    except OSError as error:
        print('deregister %s: %s; its check will notice' % (name, error), flush=True)
    select.select([signals], [], [], goodbye)
    server.stop(GRACE).wait()


if __name__ == '__main__':
    main()
