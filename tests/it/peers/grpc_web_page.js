// A page that calls through gRPC-Web with the library `grpc-web`, and reports what became of it. Messages are bytes.
const { GrpcWebClientBase, MethodDescriptor, MethodType } = require("grpc-web");

const api = new URLSearchParams(location.search).get("api");
const bytes = (message) => message;
const method = (name, type) => new MethodDescriptor(`/echo.Echo/${name}`, type, Uint8Array, Uint8Array, bytes, bytes);
const encode = (text) => new TextEncoder().encode(text);
const decode = (message) => new TextDecoder().decode(message);

function unary(format, base, name, request, metadata = {}) {
  const client = new GrpcWebClientBase({ format });
  return client
    .unaryCall(`${base}/echo.Echo/${name}`, request, metadata, method(name, MethodType.UNARY))
    .then((message) => ({ message }), (error) => ({ code: error.code, message: error.message }));
}

function stream(base, name, request) {
  return new Promise((resolve) => {
    const client = new GrpcWebClientBase({ format: "text" });
    const call = client.serverStreaming(`${base}/echo.Echo/${name}`, request, {}, method(name, MethodType.SERVER_STREAMING));
    const told = { messages: [], status: null, error: null };
    call.on("data", (message) => told.messages.push(decode(message)));
    call.on("status", (status) => { told.status = status.code; });
    call.on("error", (error) => { told.error = { code: error.code, message: error.message }; resolve(told); });
    call.on("end", () => resolve(told));
  });
}

async function main() {
  const told = {};
  const big = new Uint8Array(4 << 20).map((_, at) => at % 251);
  const same = (message) => message && message.length === big.length && message.every((byte, at) => byte === at % 251);
  for (const format of ["binary", "text"]) {
    const echoed = await unary(format, `${api}/web`, "Unary", encode("hällo"));
    const large = await unary(format, `${api}/web`, "Unary", big);
    told[format] = {
      unary: decode(echoed.message),
      large: same(large.message),
      fail: await unary(format, `${api}/web`, "Fail", encode("")),
      refused: await unary(format, `${api}/closed`, "Unary", encode("")),
      late: await unary(format, `${api}/web`, "WaitUnary", encode("x"), { deadline: String(Date.now() + 600) }),
    };
  }
  told.stream = await stream(`${api}/web`, "ServerStream", encode("piece"));
  told.failLate = await stream(`${api}/web`, "FailLate", encode("x"));
  told.limited = [];
  for (let n = 0; n < 2; n++) told.limited.push((await unary("text", `${api}/limited`, "Unary", encode("x"))).code ?? 0);
  const off = await unary("text", `${api}/off`, "Unary", encode("x"));
  told.off = off.code ?? "answered";
  return told;
}

main()
  .catch((error) => ({ broken: String(error.stack || error) }))
  .then((told) => fetch("/report", { method: "POST", body: JSON.stringify(told) }));
