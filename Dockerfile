FROM python:3.13-slim
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY xray xray
COPY xray_server xray_server
COPY examples examples
RUN pip install --no-cache-dir '.[mongo]' && useradd xray && install -d -o xray /data
# Where the embedded store lies, when no other is named.
WORKDIR /data
VOLUME /data
USER xray
EXPOSE 7350
CMD ["xray", "serve"]
