"""A Flask application that registers itself in Consul.

    apt-get install python3-flask python3-consul
    python3 examples/flask/app.py 9001
    python3 examples/flask/app.py 9002
    sluice run --service star

Nothing in here knows about sluice. Consul is expected on 127.0.0.1:8500, or
where the environment variable CONSUL_HTTP_ADDR ("host:port") says.
"""

import sys

import consul
from flask import Flask

ADDRESS = '127.0.0.1'

app = Flask(__name__)
port = int(sys.argv[1])


@app.route('/')
def hello():
    return 'Hello from star-%d\n' % port


@app.route('/health')
def health():
    return 'ok\n'


def register():
    client = consul.Consul()
    check = consul.Check.http(
        'http://%s:%d/health' % (ADDRESS, port),
        interval='1s', timeout='5s', deregister='5s')
    client.agent.service.register(
        'star', service_id='star-%d' % port, address=ADDRESS, port=port,
        check=check)


if __name__ == '__main__':
    register()
    app.run(host=ADDRESS, port=port)
