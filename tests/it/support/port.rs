//! Ports for servers that tests start.

use tokio::net::TcpSocket;

/// A port of 127.0.0.1 that the kernel gives to nobody else while this exists. It is bound, and nothing listens on it, so a
/// connection is refused until a server binds it too, with SO_REUSEADDR as servers do.
pub struct Port {
    pub number: u16,
    _bound: TcpSocket,
}

impl Port {
    pub fn reserved() -> Port {
        let bound = TcpSocket::new_v4().unwrap();
        bound.set_reuseaddr(true).unwrap();
        bound.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Port { number: bound.local_addr().unwrap().port(), _bound: bound }
    }
}

#[test]
fn a_reserved_port_refuses_connections_until_a_server_listens_on_it() {
    let port = Port::reserved();
    let address = ("127.0.0.1", port.number);
    let refused = std::net::TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let _server = std::net::TcpListener::bind(address).unwrap();
    std::net::TcpStream::connect(address).unwrap();
}
